// Keys and values of a cache in float32 or float16, page by page. A page's keys lie [D][16], so a page is a group of 16
// columns and scores come out of the same product as everything else; values lie [16][D].
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// out[r][n · kLanes …] continued by Σ scores[r][i] · v[i] over positions [from, to), N vectors of columns from d on.
template <int R, int N, class W, class Page>
inline void add_values(const Page& v, int D, int d, const float* scores, int64_t score_width, int from, int to,
                       float* out, int64_t width) {
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[r][n] = load(out + r * width + d + n * kLanes);
  }
  for (int i = from; i < to;) {
    const int end = to < (i | 15) + 1 ? to : (i | 15) + 1;
    const W* row = v(i / 16) + (i % 16) * D + d;
    for (; i < end; ++i, row += D) {
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
template <class W, class Page>
inline void add_last_values(const Page& v, int D, int d, const float* scores, int from, int to, float* out) {
  for (; d < D; d += kLanes) {
    const int used = lanes_left(D, d);
    F sum = load(out + d);
    for (int i = from; i < to; ++i) {
      sum = fma(set1(scores[i]), load_weight_n(v(i / 16) + (i % 16) * D + d, used), sum);
    }
    store(out + d, sum);
  }
}

template <class W>
struct FloatPages {
  const PagedAttention& a;

  const W* key_page(int64_t i) const { return reinterpret_cast<const W*>(a.k + size_t(a.pages[i]) * a.page_bytes); }
  const W* value_page(int64_t i) const { return reinterpret_cast<const W*>(a.v + size_t(a.pages[i]) * a.page_bytes); }

  /// scores[r][16 · page + slot] = queries[r] · key, each one chain over D, for the first `pages` pages.
  void score(int rows, const float* queries, int64_t pages, float* scores, int64_t score_width) const {
    tiles<false, W>(
        rows, queries, a.D, [&](int64_t page) { return key_page(page); }, pages, a.D, scores, score_width, false);
  }

  /// out[r][d] continued by Σ scores[r][i] · value over positions [from, to), each one chain over the positions.
  template <int R>
  void add(const float* scores, int64_t score_width, int from, int to, float* out, int64_t width, float*) const {
    constexpr int N = groups_at_once(R) * kParts;
    const auto v = [this](int64_t page) { return value_page(page); };
    int d = 0;
    for (; d + N * kLanes <= a.D; d += N * kLanes) {
      add_values<R, N, W>(v, a.D, d, scores, score_width, from, to, out, width);
    }
    for (; d + 16 <= a.D; d += 16) add_values<R, kParts, W>(v, a.D, d, scores, score_width, from, to, out, width);
    if (d < a.D) {
      for (int r = 0; r < R; ++r) {
        add_last_values<W>(v, a.D, d, scores + r * score_width, from, to, out + r * width);
      }
    }
  }
};

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
