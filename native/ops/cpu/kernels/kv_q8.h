// Keys and values of a cache in Q8_0, page by page: codes of one byte, a scale for 32 values of a head at one position.
// Codes are multiplied as float32; a key's scale comes to the sum over its block, a value's scale to the weight of its
// position, so that neither is multiplied with every value:
//
//   score = scale · (Σ query · code) + score, blocks in order;   output = (weight · scale) · code + output
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// The scale is that of the float16 stored; a NaN or infinity in a block makes its scale NaN, so that it shows.
void to_q8(int8_t* codes, uint16_t* d, const float* x, int n) {
  for (int b = 0; b < n; b += 32) {
    const int count = n - b < 32 ? n - b : 32;
    alignas(64) float block[32] = {};
    for (int i = 0; i < count; ++i) block[i] = x[b + i];
    const BlockRange range = range_of(block);
    alignas(64) float scale[16] = {};
    alignas(64) uint16_t halfs[16];
    scale[0] = range.most / 127.0f + range.poison;
    store_half(halfs, load(scale));
    d[b / 32] = halfs[0];
    store(scale, load_half(halfs));
    // half's rounding may leave the largest value beyond 127 scales; beside a scale that is 0 or NaN codes say nothing
    const F inverse = set1(scale[0] > 0 ? 1.0f / scale[0] : 0.0f), limit = set1(127.0f), least = set1(-127.0f);
    alignas(64) int8_t rounded[32];
    for (int i = 0; i < 32; i += kLanes) {
      store_i8(rounded + i, max_of(min_of(mul(load(block + i), inverse), limit), least));
    }
    for (int i = 0; i < count; ++i) codes[b + i] = rounded[i];
  }
}

/// A page of one head: codes, and behind them scales [blocks of 32 of D][16].
struct Q8Page {
  const uint8_t* codes;
  const uint16_t* scales;
};

/// Scores of R queries with G pages of 16 positions side by side; `next` are those that come after them.
template <int R, int G>
inline void score_q8(const float* queries, int D, const Q8Page* pages, const Q8Page* next, float* scores,
                     int64_t score_width) {
  constexpr int N = G * kParts;
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sum[r][n] = zero();
  }
  for (int b = 0; b < D; b += 32) {
    const int end = D - b < 32 ? D : b + 32;
    F part[R][N];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) part[r][n] = zero();
    }
    for (int i = b; i < end; ++i) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) __builtin_prefetch(next[g].codes + 16 * i);
      F code[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) code[n] = load_i8(pages[n / kParts].codes + 16 * i + (n % kParts) * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const F q = set1(queries[r * D + i]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) part[r][n] = fma(q, code[n], part[r][n]);
      }
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      __builtin_prefetch(next[n / kParts].scales + b / 2);
      const F scale = load_half(pages[n / kParts].scales + b / 2 + (n % kParts) * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) sum[r][n] = fma(scale, part[r][n], sum[r][n]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) store(scores + r * score_width + n * kLanes, sum[r][n]);
  }
}

/// out[r][0 … N · kLanes) continued by Σ weights[r][i] · codes[i] over R rows and the positions [from, to) of a page.
/// Codes of a row are `D` bytes apart; a row's weights are `stride` apart, those of the columns' blocks of 32 side by side.
template <int R, int N>
inline void add_codes(const uint8_t* codes, int D, const float* weights, int64_t stride, int from, int to, float* out,
                      int64_t width) {
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sum[r][n] = load(out + r * width + n * kLanes);
  }
  for (int i = from; i < to; ++i) {
    F code[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) code[n] = load_i8(codes + i * D + n * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        sum[r][n] = fma(set1(weights[r * stride + n * kLanes / 32 * 16 + i]), code[n], sum[r][n]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) store(out + r * width + n * kLanes, sum[r][n]);
  }
}

struct Q8Pages {
  const PagedAttention& a;

  Q8Page page(const uint8_t* first, int64_t i) const {
    const uint8_t* at = first + size_t(a.pages[i]) * a.page_bytes;
    return {at, reinterpret_cast<const uint16_t*>(at + 16 * size_t(a.D))};
  }

  void score(int rows, const float* queries, int64_t pages, float* scores, int64_t score_width) const {
    with_rows(rows, [&]<int R>() {
      constexpr int G = groups_at_once(2 * R);  // a block's sums are kept beside the whole's
      int64_t i = 0;
      for (; i + G <= pages; i += G) score_pages<R, G>(queries, i, pages, scores, score_width);
      for (; i < pages; ++i) score_pages<R, 1>(queries, i, pages, scores, score_width);
    });
  }

  /// weights: [R][blocks of 32 of D][16]. Columns from D up to a multiple of 16 become anything: what is read there are
  /// other positions' codes, or scales.
  template <int R>
  void add(const float* scores, int64_t score_width, int from, int to, float* out, int64_t width,
           float* weights) const {
    if (from == to) return;
    constexpr int N = value_groups_at_once(R) * kParts;
    const int64_t blocks = (a.D + 31) / 32, stride = blocks * 16;
    for (int first = from / 16 * 16; first < to; first += 16) {
      const int later = first + 16 * kPagesAhead;
      const Q8Page v = page(a.v, first / 16), next = page(a.v, (later < to ? later : first) / 16);
      for (int64_t i = 0; i < 16 * a.D + 32 * blocks; i += 64) __builtin_prefetch(next.codes + i);
      for (int64_t b = 0; b < blocks; ++b) {
        for (int lane = 0; lane < 16; lane += kLanes) {
          const F scale = load_half(v.scales + b * 16 + lane);
          for (int r = 0; r < R; ++r) {
            store(weights + r * stride + b * 16 + lane, mul(load(scores + r * score_width + first + lane), scale));
          }
        }
      }
      const int begin = from > first ? from - first : 0, end = to - first < 16 ? to - first : 16;
      int d = 0;
      for (; d + N * kLanes <= a.D; d += N * kLanes) {
        add_columns<R, N>(v.codes, weights, stride, begin, end, d, out, width);
      }
      for (; d < a.D; d += 16) add_columns<R, kParts>(v.codes, weights, stride, begin, end, d, out, width);
    }
  }

 private:
  /// Pages [i, i + G) of `pages`.
  template <int R, int G>
  void score_pages(const float* queries, int64_t i, int64_t pages, float* scores, int64_t score_width) const {
    Q8Page keys[G], next[G];
    for (int g = 0; g < G; ++g) {
      keys[g] = page(a.k, i + g);
      next[g] = page(a.k, i + G + g < pages ? i + G + g : i + g);
    }
    score_q8<R, G>(queries, a.D, keys, next, scores + 16 * i, score_width);
  }

  template <int R, int N>
  void add_columns(const uint8_t* codes, const float* weights, int64_t stride, int begin, int end, int d, float* out,
                   int64_t width) const {
    add_codes<R, N>(codes + d, a.D, weights + d / 32 * 16, stride, begin, end, out + d, width);
  }
};

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
