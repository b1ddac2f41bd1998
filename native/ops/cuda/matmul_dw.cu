// Gradients of a product's parameters: the weights', one chain of fused multiply-adds over the rows that begins with what is
// there, and the bias's, plain additions.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/float_tile.h"

namespace minigpt4::cuda {

namespace {

inline constexpr int kBiasThreads =
    64;  // few a block, so that a row of a few thousand values reaches many multiprocessors

/// A thread sums one column, row by row; 16 rows are loaded before they are added.
__global__ void __launch_bounds__(kBiasThreads) bias_db_kernel(float* db, const float* dy, int T, int C) {
  const int column = int(blockIdx.x) * kBiasThreads + int(threadIdx.x);
  if (column >= C) return;
  constexpr int together = 16;
  float sum = db[column];
  int t = 0;
  for (; t + together <= T; t += together) {
    float values[together];
#pragma unroll
    for (int i = 0; i < together; ++i) values[i] = __ldg(dy + int64_t(t + i) * C + column);
#pragma unroll
    for (int i = 0; i < together; ++i) sum += values[i];
  }
  for (; t < T; ++t) sum += __ldg(dy + int64_t(t) * C + column);
  db[column] = sum;
}

}  // namespace

void CudaOps::matmul_dw(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols) {
  if (T <= 0) return;
  const FloatProduct product{
      {dy, rows}, {x, cols}, int(rows), int(cols), T, dw, nullptr, FloatSums::extend, rows_aligned(dw, nullptr, cols)};
  run("matmul_dw", float_product<false, false>, float_grid(rows, cols), dim3(kFloatThreads), 0, product);
}

void CudaOps::bias_db(float* db, const float* dy, int T, int C) {
  if (T <= 0) return;
  run("bias_db", bias_db_kernel, dim3(unsigned((C + kBiasThreads - 1) / kBiasThreads)), dim3(kBiasThreads), 0, db, dy,
      T, C);
}

}  // namespace minigpt4::cuda
