// Causal attention over the pages of a KV cache, for a few query vectors that share a sequence and a key-value head.
// A page's keys lie [D][16], so a page is a group of 16 columns and scores come out of the same product as everything
// else; values lie [16][D]. Every score is one chain over D and every output one chain over positions from 0 on,
// whoever shares the tile: positions that all vectors see are done together, the rest one vector at a time.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// out[r][n · kLanes …] continued by Σ scores[r][i] · v[i] over positions [from, to), N vectors of columns from d on.
template <int R, int N, class W>
inline void add_values(const PagedAttention& a, const W* v, int d, const float* scores, int64_t score_width, int from,
                       int to, float* out, int64_t width) {
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[r][n] = load(out + r * width + d + n * kLanes);
  }
  for (int i = from; i < to;) {
    const int end = to < (i | 15) + 1 ? to : (i | 15) + 1;
    const W* row = v + a.pages[i / 16] * a.page_values + (i % 16) * a.D + d;
    for (; i < end; ++i, row += a.D) {
      F b[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) b[n] = load_weight(row + n * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const F p = set1(scores[r * score_width + i]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[r][n] = fma(p, b[n], sum[r][n]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) store(out + r * width + d + n * kLanes, sum[r][n]);
  }
}

inline F load_weight_n(const float* p, int n) { return load_n(p, n); }
inline F load_weight_n(const Half* p, int n) { return load_half_n(&p->bits, n); }

/// The last D mod 16 columns, one row at a time and without reading past them.
template <class W>
inline void add_last_values(const PagedAttention& a, const W* v, int d, const float* scores, int from, int to,
                            float* out) {
  for (; d < a.D; d += kLanes) {
    const int used = lanes_left(a.D, d);
    F sum = load(out + d);
    for (int i = from; i < to; ++i) {
      const W* row = v + a.pages[i / 16] * a.page_values + (i % 16) * a.D + d;
      sum = fma(set1(scores[i]), load_weight_n(row, used), sum);
    }
    store(out + d, sum);
  }
}

template <int R, class W>
inline void add_value_row(const PagedAttention& a, const W* v, const float* scores, int64_t score_width, int from,
                          int to, float* out, int64_t width) {
  constexpr int N = groups_at_once(R) * kParts;
  int d = 0;
  for (; d + N * kLanes <= a.D; d += N * kLanes) {
    add_values<R, N>(a, v, d, scores, score_width, from, to, out, width);
  }
  for (; d + 16 <= a.D; d += 16) add_values<R, kParts>(a, v, d, scores, score_width, from, to, out, width);
  if (d < a.D) {
    for (int r = 0; r < R; ++r) add_last_values(a, v, d, scores + r * score_width, from, to, out + r * width);
  }
}

template <class W>
void attend_paged_of(const PagedAttention& a, int m0, int m1, float* scratch) {
  const W *k = static_cast<const W*>(a.k), *v = static_cast<const W*>(a.v);
  const int rows = m1 - m0;
  const int64_t width = padded(a.D), score_width = score_stride(a.longest);
  float* scores = scratch;                        // [kRows][score_width]
  float* queries = scores + kRows * score_width;  // [kRows][D]
  float* out = queries + kRows * a.D;             // [kRows][width]
  const auto place = [&](int m) { return m / a.heads * a.stride + m % a.heads * a.D; };
  const auto length = [&](int m) { return a.positions[m / a.heads] + 1; };
  const F scale = set1(a.scale);
  for (int r = 0; r < rows; ++r) {
    each_vector(a.D, [&](int64_t d, int used) {
      store_part(queries + r * a.D + d, mul(load_part(a.q + place(m0 + r) + d, used), scale), used);
    });
    for (int64_t d = 0; d < width; d += kLanes) store(out + r * width + d, zero());
  }
  const int shortest = length(m0), longest = length(m1 - 1);
  tiles<false, W>(
      rows, queries, a.D, [&](int64_t page) { return k + a.pages[page] * a.page_values; }, (longest + 15) / 16, a.D,
      scores, score_width, false);
  float inverse[kRows];
  for (int r = 0; r < rows; ++r) inverse[r] = 1.0f / softmax_row(scores + r * score_width, length(m0 + r));
  with_rows(rows, [&]<int R>() { add_value_row<R>(a, v, scores, score_width, 0, shortest, out, width); });
  for (int r = 0; r < rows; ++r) {
    add_value_row<1>(a, v, scores + r * score_width, score_width, shortest, length(m0 + r), out + r * width, width);
    const F factor = set1(inverse[r]);
    each_vector(a.D, [&](int64_t d, int used) {
      store_part(a.y + place(m0 + r) + d, mul(load(out + r * width + d), factor), used);
    });
  }
}

void attend_paged(const PagedAttention& a, bool half, int m0, int m1, float* scratch) {
  half ? attend_paged_of<Half>(a, m0, m1, scratch) : attend_paged_of<float>(a, m0, m1, scratch);
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
