// Keys and values of a cache in float32 or float16, page by page. A page's keys lie [D][16], so a page is a group of 16
// columns and scores come out of the same product as everything else; values lie [16][D].
//
// A page of one head is a few kilobytes somewhere in memory: the processor's own prefetching, which learns anew for every
// page, would leave a single row waiting for memory most of the time. So pages are asked for while those before them are
// worked on (Zen 4, one core, 2,000 positions of 32 heads 128 wide in 8 bits: 1.9 ms instead of 6.2).
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// How many pages of values ahead of their use: one takes less time than memory does.
constexpr int kPagesAhead = 4;

/// Columns of values that R rows take at once, in groups of 16.
constexpr int value_groups_at_once(int R) { return R * kParts * 8 <= kSums ? 8 : groups_at_once(R); }

/// out[r][n · kLanes …] continued by Σ scores[r][i] · v[i] over positions [from, to), N vectors of columns from d on.
template <int R, int N, class W, class Page>
inline void add_values(const Page& v, int D, int d, const float* scores, int64_t score_width, int from, int to,
                       float* out, int64_t width) {
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sum[r][n] = load(out + r * width + d + n * kLanes);
  }
  for (int i = from; i < to;) {
    const int end = to < (i | 15) + 1 ? to : (i | 15) + 1, later = i + 16 * kPagesAhead;
    const W *row = v(i / 16) + (i % 16) * D + d, *next = v((later < to ? later : i) / 16) + (i % 16) * D + d;
    for (; i < end; ++i, row += D, next += D) {
#pragma GCC unroll 16
      for (int n = 0; n < N; n += kParts) __builtin_prefetch(next + n * kLanes);
      F b[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) b[n] = load_weight(row + n * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const F p = set1(scores[r * score_width + i]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) sum[r][n] = fma(p, b[n], sum[r][n]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
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
    with_rows(rows, [&]<int R>() {
      constexpr int G = groups_at_once(R);
      int64_t i = 0;
      for (; i + G <= pages; i += G) score_pages<R, G>(queries, i, pages, scores, score_width);
      for (; i < pages; ++i) score_pages<R, 1>(queries, i, pages, scores, score_width);
    });
  }

  /// out[r][d] continued by Σ scores[r][i] · value over positions [from, to), each one chain over the positions.
  template <int R>
  void add(const float* scores, int64_t score_width, int from, int to, float* out, int64_t width, float*) const {
    constexpr int N = value_groups_at_once(R) * kParts;
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

 private:
  /// Pages [i, i + G) of `pages`.
  template <int R, int G>
  void score_pages(const float* queries, int64_t i, int64_t pages, float* scores, int64_t score_width) const {
    const W *keys[G], *next[G];
    for (int g = 0; g < G; ++g) {
      keys[g] = key_page(i + g);
      next[g] = key_page(i + G + g < pages ? i + G + g : i + g);
    }
    const auto ahead = [&next](int g, int64_t k) { __builtin_prefetch(next[g] + 16 * k); };
    tile<R, G, false, W>(queries, a.D, keys, a.D, scores + 16 * i, score_width, false, ahead);
  }
};

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
