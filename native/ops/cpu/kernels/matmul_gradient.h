// The gradients of a product with weights. dx = dy · w is a float product whose outputs are the weight's columns: for
// each chain of the weight's rows the values of the task's columns are widened or dequantized once into scratch, 16
// columns side by side, and then it goes as in matmul_float. dw += dyᵀ · x has one chain a value, over the rows t.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// Sixteen rows of a packed float group, columns [c, c + 16) (those beyond `cols` are zero), to to[row · 16 + column].
template <class W>
inline void widen_rows(const W* group, int64_t c, int64_t cols, float* to) {
  for (int part = 0; part < kParts; ++part) {
    for (int p = 0; p < kParts; ++p) {
      F x[kLanes];
      const int64_t first = c + p * kLanes;
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        x[i] = first + i < cols ? load_weight(group + (first + i) * 16 + part * kLanes) : zero();
      }
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(to + (part * kLanes + i) * 16 + p * kLanes, x[i]);
    }
  }
}

/// Blocks whose codes make whole vectors of words.
constexpr int blocks_at_once = kLanes < 8 ? 1 : kLanes / 8;

/// Sixteen rows of `blocks` (1 to blocks_at_once) blocks of a quantized group from block b on, dequantized: column 16 h + i
/// of the n-th block goes to to[(2 n + h) · stride + row · 16 + i]. Words of four codes change places with rows first,
/// so that what is done to every value is a conversion, its row's scale and its row's minimum.
template <int kind>
inline void dequantize_rows(const uint8_t* group, float offset, int64_t b, int blocks, float* to, int64_t stride) {
  constexpr int bits = kind / 8, at_once = blocks_at_once, words_at_once = 8 * at_once / kLanes;
  constexpr bool minimum = kind & 4, halves = kind & 2;
  const F shift = set1(offset);
  for (int part = 0; part < kParts; ++part) {
    F words[words_at_once][kLanes];
    alignas(64) uint8_t codes[kLanes][at_once * 32];
    alignas(64) float scale[at_once][2][kLanes], least[at_once][2][kLanes];
#pragma GCC unroll 2
    for (int n = 0; n < at_once; ++n) {
      // What is not there is read as the first block once more and not used.
      const int64_t at = b + (n < blocks ? n : 0);
      const uint8_t* block = group + codes_at<kind>(at) + part * kLanes * 4;
      const Codes c[8] = {code_vector<bits, 0>(block), code_vector<bits, 1>(block), code_vector<bits, 2>(block),
                          code_vector<bits, 3>(block), code_vector<bits, 4>(block), code_vector<bits, 5>(block),
                          code_vector<bits, 6>(block), code_vector<bits, 7>(block)};
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) words[(8 * n + j) / kLanes][(8 * n + j) % kLanes] = as_lanes(c[j]);
      const BlockScales s = block_scales<kind>(group, at, part);
      for (int h = 0; h < (halves ? 2 : 1); ++h) {
        store(scale[n][h], s.scale[h]);
        if constexpr (minimum) store(least[n][h], s.minimum[h]);
      }
    }
#pragma GCC unroll 2
    for (int w = 0; w < words_at_once; ++w) {
      transpose(words[w]);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(reinterpret_cast<float*>(codes[i] + 4 * kLanes * w), words[w][i]);
    }
    for (int n = 0; n < blocks; ++n) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        float* row = to + (2 * n + h) * stride + part * kLanes * 16;
#pragma GCC unroll 4
        for (int i = 0; i < kLanes; ++i) {
          const F factor = set1(scale[n][halves ? h : 0][i]);
#pragma GCC unroll 2
          for (int p = 0; p < kParts; ++p) {
            F value = mul(factor, sub(load_u8(codes[i] + 32 * n + 16 * h + p * kLanes), shift));
            if constexpr (minimum) value = add(value, set1(least[n][halves ? h : 0][i]));
            store(row + i * 16 + p * kLanes, value);
          }
        }
      }
    }
  }
}

/// What the types differ in is bring(row group, to): sixteen rows of the piece's columns to
/// to[(g - g0) · 16 kChain + 16 row + column].
template <class Bring>
inline void matmul_dx_of(const GradientMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch,
                         const Bring& bring) {
  const int64_t groups = g1 - g0, width = 16 * groups;
  float* const sums = scratch;                                     // [tiles][kRows][width]
  float* const wide = scratch + int64_t(i1 - i0) * kRows * width;  // [groups][kChain][16]
  for (int64_t k0 = 0; k0 < m.rows; k0 += kChain) {
    const int64_t k = m.rows - k0 < kChain ? m.rows - k0 : kChain;
    for (int64_t r = 0; r < k; r += 16) bring(m.w + size_t((k0 + r) / 16) * m.group_bytes, wide + r * 16);
    for (int i = i0; i < i1; ++i) {
      const int t = i * kRows, rows = m.T - t < kRows ? m.T - t : kRows;
      tiles<true, float>(
          rows, m.dy + int64_t(t) * m.rows + k0 * rows, rows, [&](int64_t g) { return wide + g * kChain * 16; }, groups,
          k, sums + int64_t(i - i0) * kRows * width, width, k0 > 0);
    }
  }
  for (int i = i0; i < i1; ++i) {
    const int t = i * kRows, rows = m.T - t < kRows ? m.T - t : kRows;
    for (int r = 0; r < rows; ++r) {
      finish_row(m.dx + int64_t(t + r) * m.cols, sums + (int64_t(i - i0) * kRows + r) * width, nullptr, m.accumulate,
                 m.cols, g0 * 16, groups);
    }
  }
}

template <class W>
inline auto bring_float(const GradientMatmul& m, int64_t g0, int64_t g1) {
  return [=](const uint8_t* group, float* to) {
    for (int64_t g = g0; g < g1; ++g) {
      widen_rows(reinterpret_cast<const W*>(group), 16 * g, m.cols, to + (g - g0) * kChain * 16);
    }
  };
}

template <int kind>
inline auto bring_quantized(const GradientMatmul& m, int64_t g0, int64_t g1) {
  return [=](const uint8_t* group, float* to) {
    constexpr int at_once = blocks_at_once;
    for (int64_t b = g0 / 2; b < g1 / 2; b += at_once) {
      const int blocks = g1 / 2 - b < at_once ? int(g1 / 2 - b) : at_once;
      dequantize_rows<kind>(group, float(m.offset), b, blocks, to + (2 * b - g0) * kChain * 16, kChain * 16);
    }
  };
}

/// body(bring) with the one for the weight's type.
template <class Body>
inline void with_weights(const GradientMatmul& m, int64_t g0, int64_t g1, const Body& body) {
  if (m.type == Type::F32) return body(bring_float<float>(m, g0, g1));
  if (m.type == Type::F16) return body(bring_float<Half>(m, g0, g1));
  if (m.type == Type::BF16) return body(bring_float<Bf16>(m, g0, g1));
  switch (m.kind) {
#define MINIGPT4_KIND(bits, minimum, halves, super)               \
  case (QuantizedFormat{bits, 0, minimum, halves, super}.kind()): \
    return body(bring_quantized<QuantizedFormat{bits, 0, minimum, halves, super}.kind()>(m, g0, g1));
    MINIGPT4_EVERY_KIND
#undef MINIGPT4_KIND
  }
}

inline void matmul_dx(const GradientMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  with_weights(m, g0, g1, [&](const auto& bring) { matmul_dx_of(m, g0, g1, i0, i1, scratch, bring); });
}

/// dw for R rows and N vectors of columns (the last of `used` lanes), continued over n rows t.
template <int R, int N>
inline void add_outer(float* dw, const float* dy, const float* x, int n, int64_t rows, int64_t cols, int used) {
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) sum[r][i] = load_part(dw + r * cols + i * kLanes, i + 1 < N ? kLanes : used);
  }
  for (int t = 0; t < n; ++t) {
    F b[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) b[i] = load_part(x + t * cols + i * kLanes, i + 1 < N ? kLanes : used);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const F a = set1(dy[t * rows + r]);
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) sum[r][i] = fma(a, b[i], sum[r][i]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) store_part(dw + r * cols + i * kLanes, sum[r][i], i + 1 < N ? kLanes : used);
  }
}

void matmul_dw(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols, int64_t r0, int64_t r1) {
  constexpr int at_once = 64;  // rows of x, which then stay in level 2 while all of dw's rows go by
  for (int t = 0; t < T; t += at_once) {
    const int n = T - t < at_once ? T - t : at_once;
    for (int64_t r = r0; r < r1; r += kRows) {
      with_rows(r1 - r < kRows ? int(r1 - r) : kRows, [&]<int R>() {
        constexpr int N = groups_at_once(R) * kParts;
        float* to = dw + r * cols;
        const float *a = dy + int64_t(t) * rows + r, *b = x + int64_t(t) * cols;
        int64_t c = 0;
        for (; c + N * kLanes <= cols; c += N * kLanes) add_outer<R, N>(to + c, a, b + c, n, rows, cols, kLanes);
        for (; c < cols; c += kLanes) add_outer<R, 1>(to + c, a, b + c, n, rows, cols, lanes_left(cols, c));
      });
    }
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
