// The float product that matmul and both attentions are made of: a tile of a few rows of x times a few groups of 16
// columns, every result one chain of fused multiply-adds over k, in registers.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

inline F load_weight(const float* p) { return load(p); }

/// A 16-bit float and which one it is, so that the type of a weight is a type.
struct Half {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};
inline F load_weight(const Half* p) { return load_half(&p->bits); }
inline F load_weight(const Bf16* p) { return load_bf16(&p->bits); }

/// Weights that lie in memory's order need not be asked for ahead of their use.
struct NothingAhead {
  void operator()(int, int64_t) const {}
};

/// out[r · out_stride + 16 g + lane] = Σ_k x[r, k] · w[g][16 k + lane], or (add_to) that sum added to what is there.
/// x[r, k] is x[k · x_stride + r] if `columns` (a packed tile), else x[r · x_stride + k]. ahead(g, k) is called on the way.
template <int R, int G, bool columns, class W, class Ahead = NothingAhead>
inline void tile(const float* x, int64_t x_stride, const W* const* w, int64_t k, float* out, int64_t out_stride,
                 bool add_to, const Ahead& ahead = {}) {
  constexpr int N = G * kParts;
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sum[r][n] = zero();
  }
  const W* at[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) at[g] = w[g];
  for (int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) ahead(g, i);
    F b[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) b[n] = load_weight(at[n / kParts] + 16 * i + (n % kParts) * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const F a = set1(columns ? x[i * x_stride + r] : x[r * x_stride + i]);
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sum[r][n] = fma(a, b[n], sum[r][n]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      float* to = out + r * out_stride + n * kLanes;
      store(to, add_to ? add(load(to), sum[r][n]) : sum[r][n]);
    }
  }
}

/// Groups that R rows take at once: as many (a power of two, at most 4) as the registers for sums allow.
constexpr int groups_at_once(int R) { return R * kParts * 4 <= kSums ? 4 : R * kParts * 2 <= kSums ? 2 : 1; }

/// The same for any number of groups. group(g) is where group g's weights for this stretch of k are.
template <int R, bool columns, class W, class Group>
inline void tile_row(const float* x, int64_t x_stride, Group group, int64_t groups, int64_t k, float* out,
                     int64_t out_stride, bool add_to) {
  constexpr int G = groups_at_once(R);
  int64_t g = 0;
  for (; g + G <= groups; g += G) {
    const W* w[G];
    for (int i = 0; i < G; ++i) w[i] = group(g + i);
    tile<R, G, columns, W>(x, x_stride, w, k, out + 16 * g, out_stride, add_to);
  }
  if constexpr (G > 1) {
    for (; g < groups; ++g) {
      const W* w[1] = {group(g)};
      tile<R, 1, columns, W>(x, x_stride, w, k, out + 16 * g, out_stride, add_to);
    }
  }
}

/// Calls body<rows>(): the count of rows as a constant, 1 to kRows.
template <int R = 1, class Body>
inline void with_rows(int rows, const Body& body) {
  if (rows == R) {
    body.template operator()<R>();
  } else if constexpr (R < kRows) {
    with_rows<R + 1>(rows, body);
  }
}

/// And for any number of rows up to kRows.
template <bool columns, class W, class Group>
void tiles(int rows, const float* x, int64_t x_stride, Group group, int64_t groups, int64_t k, float* out,
           int64_t out_stride, bool add_to) {
  with_rows(rows, [&]<int R>() { tile_row<R, columns, W>(x, x_stride, group, groups, k, out, out_stride, add_to); });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
