// What rows become on the way into a product: the values of Ops::Rows, computed where they are needed and never stored as such.
#pragma once

#include <bit>
#include <cstdint>

#include "ops/cuda/block_reduce.h"
#include "ops/ops.h"

namespace minigpt4::cuda {

using RowForm = Ops::Rows::Form;

/// Rows of C values, as the kernels get them.
struct RowSource {
  const float *x, *weight, *bias, *up;
  float eps;
  int T, C;
  bool aligned;  // C is a multiple of four and all addresses are of 16 bytes
};

/// Columns k to k + W of a row at `row`, zeros from C on; W is 2 or 4 and k a multiple of it.
template <int W>
__device__ inline void load_values(float (&v)[W], const float* row, int k, const RowSource& s) {
  if (s.aligned && k < s.C) {
    uint32_t words[W];
    if constexpr (W == 4) {
      const uint4 four = gpu::load128(row + k);
      words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
    } else {
      const uint2 two = gpu::load64(row + k);
      words[0] = two.x, words[1] = two.y;
    }
#pragma unroll
    for (int i = 0; i < W; ++i) v[i] = std::bit_cast<float>(words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < W; ++i) v[i] = k + i < s.C ? std::bit_cast<float>(gpu::load32(row + k + i)) : 0.0f;
  }
}

/// Mean and inverse deviation (inverse root mean square) of a row, for the norms.
struct RowStatistics {
  float mean = 0, inverse = 0;
};

/// All threads of the block, for the same row. Thread i adds columns 4i … 4i + 3, then those 4 · blockDim further: the same
/// order wherever the row lies.
template <RowForm form>
__device__ inline RowStatistics row_statistics(const RowSource& s, int t) {
  GPU_SHARED(float, sums, [kMostWarps]);
  GPU_SHARED(float, squares, [kMostWarps]);
  RowStatistics of;
  if constexpr (form == RowForm::rms_norm || form == RowForm::layer_norm) {
    const float* row = s.x + int64_t(t) * s.C;
    float v[4];
    if constexpr (form == RowForm::layer_norm) {
      float sum = 0;
      for (int k = int(threadIdx.x) * 4; k < s.C; k += int(blockDim.x) * 4) {
        load_values(v, row, k, s);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += v[i];
      }
      of.mean = block_reduce<Sum>(sum, 0.0f, sums) / float(s.C);
    }
    float square = 0;
    for (int k = int(threadIdx.x) * 4; k < s.C; k += int(blockDim.x) * 4) {
      load_values(v, row, k, s);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float d = k + i < s.C ? v[i] - of.mean : 0.0f;
        square = fmaf(d, d, square);
      }
    }
    of.inverse = 1.0f / sqrtf(block_reduce<Sum>(square, 0.0f, squares) / float(s.C) + s.eps);
  }
  return of;
}

/// Columns k to k + W of row t as the product reads them, zeros from C on.
template <RowForm form, int W>
__device__ inline void row_values(float (&v)[W], const RowSource& s, const RowStatistics& of, int t, int k) {
  load_values(v, s.x + int64_t(t) * s.C, k, s);
  float w[W], b[W];
  if constexpr (form == RowForm::rms_norm || form == RowForm::layer_norm) load_values(w, s.weight, k, s);
  if constexpr (form == RowForm::layer_norm) load_values(b, s.bias, k, s);
  if constexpr (form == RowForm::silu_mul) load_values(w, s.up + int64_t(t) * s.C, k, s);
#pragma unroll
  for (int i = 0; i < W; ++i) {
    if constexpr (form == RowForm::rms_norm) v[i] = v[i] * of.inverse * w[i];
    if constexpr (form == RowForm::layer_norm)
      v[i] = k + i < s.C ? fmaf((v[i] - of.mean) * of.inverse, w[i], b[i]) : 0.0f;
    if constexpr (form == RowForm::gelu) v[i] = 0.5f * v[i] * erfcf(v[i] * -0.70710678f);
    if constexpr (form == RowForm::silu_mul) v[i] = v[i] / (1.0f + expf(-v[i])) * w[i];
  }
}

}  // namespace minigpt4::cuda
