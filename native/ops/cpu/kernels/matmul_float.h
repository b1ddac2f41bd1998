// Products with float weights. For each chain of k the weights of the task's groups are widened once into scratch when
// more than one tile will use them; every result is its chains' sums added in order, then the bias, then (accumulate)
// what y held: the same for one row as for many.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// y = sums + bias (+ y) for one row and `groups` groups from output `first_row` on.
inline void finish_row(float* y, const float* sums, const float* bias, bool accumulate, int64_t rows, int64_t first_row,
                       int64_t groups) {
  const int64_t n = rows - first_row < 16 * groups ? rows - first_row : 16 * groups;
  each_vector(n, [&](int64_t i, int used) {
    F v = load(sums + i);
    if (bias) v = add(v, load_part(bias + first_row + i, used));
    if (accumulate) v = add(load_part(y + first_row + i, used), v);
    store_part(y + first_row + i, v, used);
  });
}

/// to[cols][rows] = x[rows, cols]: a tile of rows.
inline void interleave_tile(const float* x, int rows, int64_t cols, float* to) {
  constexpr int64_t line = 16;  // values of a cache line: rows may lie a power of two apart
  for (int64_t k = 0; k < cols; k += line) {
    const int64_t stop = k + line < cols ? k + line : cols;
    for (int r = 0; r < rows; ++r) {
      for (int64_t i = k; i < stop; ++i) to[i * rows + r] = x[r * cols + i];
    }
  }
}

template <class W>
void matmul_float_of(const FloatMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  constexpr bool narrow = sizeof(W) < sizeof(float);
  const W* weights = static_cast<const W*>(m.w);
  const int64_t groups = g1 - g0, width = 16 * groups;
  const int tiles_here = i1 - i0;
  float* const sums = scratch;                                        // [tiles][kRows][width]
  float* const wide = scratch + int64_t(tiles_here) * kRows * width;  // [groups][kChain][16]
  const bool widen = narrow && tiles_here > 1;
  for (int64_t k0 = 0; k0 < m.cols; k0 += kChain) {
    const int64_t k = m.cols - k0 < kChain ? m.cols - k0 : kChain;
    if (widen) {
      for (int64_t g = 0; g < groups; ++g) {
        const W* from = weights + ((g0 + g) * m.cols + k0) * 16;
        float* to = wide + g * kChain * 16;
        for (int64_t i = 0; i < 16 * k; i += kLanes) store(to + i, load_weight(from + i));
      }
    }
    for (int i = i0; i < i1; ++i) {
      const int t = i * kRows, rows = m.T - t < kRows ? m.T - t : kRows;
      const float* x = m.x + int64_t(t) * m.cols + k0 * rows;
      float* to = sums + int64_t(i - i0) * kRows * width;
      if (widen) {
        tiles<true, float>(
            rows, x, rows, [&](int64_t g) { return wide + g * kChain * 16; }, groups, k, to, width, k0 > 0);
      } else {
        tiles<true, W>(
            rows, x, rows, [&](int64_t g) { return weights + ((g0 + g) * m.cols + k0) * 16; }, groups, k, to, width,
            k0 > 0);
      }
    }
  }
  for (int i = i0; i < i1; ++i) {
    const int t = i * kRows, rows = m.T - t < kRows ? m.T - t : kRows;
    for (int r = 0; r < rows; ++r) {
      finish_row(m.y + int64_t(t + r) * m.rows, sums + (int64_t(i - i0) * kRows + r) * width, m.bias, m.accumulate,
                 m.rows, g0 * 16, groups);
    }
  }
}

inline void matmul_float(const FloatMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  if (m.type == Type::F32) {
    matmul_float_of<float>(m, g0, g1, i0, i1, scratch);
  } else if (m.type == Type::F16) {
    matmul_float_of<Half>(m, g0, g1, i0, i1, scratch);
  } else {
    matmul_float_of<Bf16>(m, g0, g1, i0, i1, scratch);
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
