// Products with F32 weights: float32 fused multiply-adds as on the CPU, one chain over the columns.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/float_tile.h"

namespace minigpt4::cuda {

namespace {

constexpr int kOutputs = 16, kTokens = 8, kStep = 128, kStride = kStep + 4, kThreads = 128;
constexpr int kMostFewRows = 32;

/// A block is 16 outputs and 8 tokens, a thread one of each: small, so that 4096 outputs give every multiprocessor of a large
/// card work. 128 columns at a time lie in shared memory, doubly buffered, the next ones under way in registers (12 KB a
/// block); rows of 132 floats keep the 16-byte loads of eight outputs free of bank conflicts.
__global__ void __launch_bounds__(kThreads, 4) matmul_f32_few(const FloatProduct p) {
  gpu::wait_for_previous();
  static_assert(kThreads == kStep);
  GPU_SHARED(float, tiles, [2][(kOutputs + kTokens) * kStride]);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int first_output = int(blockIdx.x) * kOutputs, first_token = int(blockIdx.y) * kTokens;
  const int output = lane % kOutputs, token = warp * 2 + lane / kOutputs;

  // a thread loads one column of every row
  const int loaded = 32 * warp + lane;
  const float* weights = p.n_side.data + int64_t(first_output) * p.k + loaded;
  const float* tokens = p.m_side.data + int64_t(first_token) * p.k + loaded;
  float values[kOutputs + kTokens];
  const auto load = [&](int k0) {
    const bool there = k0 + loaded < p.k;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      values[i] = there && first_output + i < p.n ? weights[int64_t(i) * p.k] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      values[kOutputs + i] = there && first_token + i < p.m ? tokens[int64_t(i) * p.k] : 0.0f;
    }
    weights += kStep;
    tokens += kStep;
  };
  float sum = 0;
  load(0);
  for (int k0 = 0, buffer = 0; k0 < p.k; k0 += kStep, buffer ^= 1) {
#pragma unroll
    for (int i = 0; i < kOutputs + kTokens; ++i) tiles[buffer][i * kStride + loaded] = values[i];
    __syncthreads();
    if (k0 + kStep < p.k) load(k0 + kStep);
    const float* const w = tiles[buffer] + output * kStride;
    const float* const x = tiles[buffer] + (kOutputs + token) * kStride;
    const int count = min(kStep, p.k - k0);
    if (count == kStep) {
#pragma unroll 8
      for (int i = 0; i < kStep; i += 4) {
        const float4 a = *reinterpret_cast<const float4*>(x + i), b = *reinterpret_cast<const float4*>(w + i);
        sum = fmaf(a.x, b.x, sum);
        sum = fmaf(a.y, b.y, sum);
        sum = fmaf(a.z, b.z, sum);
        sum = fmaf(a.w, b.w, sum);
      }
    } else {  // no links of zeros: they would turn a sum of -0 into 0
      for (int i = 0; i < count; i += 4) {
        const float4 a = *reinterpret_cast<const float4*>(x + i), b = *reinterpret_cast<const float4*>(w + i);
        sum = fmaf(a.x, b.x, sum);
        if (i + 1 < count) sum = fmaf(a.y, b.y, sum);
        if (i + 2 < count) sum = fmaf(a.z, b.z, sum);
        if (i + 3 < count) sum = fmaf(a.w, b.w, sum);
      }
    }
  }
  const int column = first_output + output, row = first_token + token;
  if (column >= p.n || row >= p.m) return;
  float& y = p.y[int64_t(row) * p.n + column];
  if (p.bias) sum += p.bias[column];
  y = p.sums == FloatSums::add ? sum + y : sum;
}

}  // namespace

void CudaOps::matmul_f32(const Product& p, const PreparedRows& x) {
  const auto& w = static_cast<const DeviceMatrix&>(*p.w);
  if (x.T <= 0) return;
  const FloatProduct product{{x.x, w.cols},
                             {reinterpret_cast<const float*>(w.data), w.cols},
                             x.T,
                             int(w.rows),
                             int(w.cols),
                             p.y,
                             p.bias,
                             p.accumulate == Accumulate::yes ? FloatSums::add : FloatSums::assign,
                             rows_aligned(p.y, p.bias, w.rows)};
  if (x.T <= kMostFewRows) {
    const dim3 grid(unsigned((w.rows + kOutputs - 1) / kOutputs), unsigned((x.T + kTokens - 1) / kTokens));
    run_overlapping("matmul", matmul_f32_few, grid, dim3(kThreads), 0, product);
  } else {
    run("matmul", float_product<true, true>, float_grid(x.T, w.rows), dim3(kFloatThreads), 0, product);
  }
}

}  // namespace minigpt4::cuda
