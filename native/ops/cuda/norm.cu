// LayerNorm, RMSNorm and RMSNorm's gradient. A block is a row; a thread has every blockDim.x-th pack of it and reads it
// once a pass (the later ones from L1). Sums: a thread's packs in order, then the tree of block_reduce.h. Shared memory:
// one float a warp and sum.
#include "ops/cuda/block_reduce.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

/// The variance is the mean of squared differences, in a pass of its own: no cancellation where the mean is large.
template <class Access>
__global__ void __launch_bounds__(1024)
    layer_norm_kernel(float* y, const float* x, const float* weight, const float* bias, int C, float eps) {
  GPU_SHARED(float, sums, [kMostWarps]);
  GPU_SHARED(float, squares, [kMostWarps]);
  x += int64_t(blockIdx.x) * C;
  y += int64_t(blockIdx.x) * C;
  float sum = 0;
  for_row<Access>(C, [&](int i) {
    const auto in = Access::load(x + i);
    for (int j = 0; j < Access::width; ++j) sum += in.v[j];
  });
  const float mean = block_reduce<Sum>(sum, 0.0f, sums) / float(C);
  float square = 0;
  for_row<Access>(C, [&](int i) {
    const auto in = Access::load(x + i);
    for (int j = 0; j < Access::width; ++j) {
      const float d = in.v[j] - mean;
      square = fmaf(d, d, square);
    }
  });
  const float inverse = 1.0f / sqrtf(block_reduce<Sum>(square, 0.0f, squares) / float(C) + eps);
  for_row<Access>(C, [&](int i) {
    auto out = Access::load(x + i);
    const auto w = Access::load(weight + i), b = Access::load(bias + i);
    for (int j = 0; j < Access::width; ++j) out.v[j] = fmaf((out.v[j] - mean) * inverse, w.v[j], b.v[j]);
    Access::store(y + i, out);
  });
}

template <class Access>
__global__ void __launch_bounds__(1024)
    rms_norm_kernel(float* y, const float* x, const float* weight, int C, float eps) {
  GPU_SHARED(float, squares, [kMostWarps]);
  x += int64_t(blockIdx.x) * C;
  y += int64_t(blockIdx.x) * C;
  float square = 0;
  for_row<Access>(C, [&](int i) {
    const auto in = Access::load(x + i);
    for (int j = 0; j < Access::width; ++j) square = fmaf(in.v[j], in.v[j], square);
  });
  const float inverse = 1.0f / sqrtf(block_reduce<Sum>(square, 0.0f, squares) / float(C) + eps);
  for_row<Access>(C, [&](int i) {
    auto out = Access::load(x + i);
    const auto w = Access::load(weight + i);
    for (int j = 0; j < Access::width; ++j) out.v[j] = out.v[j] * inverse * w.v[j];
    Access::store(y + i, out);
  });
}

/// With g = dy · weight and i = 1 / √(mean(x²) + eps): dx (+)= i · g - x · i³ · mean(g · x).
template <class Access>
__global__ void __launch_bounds__(1024) rms_norm_dx_kernel(float* dx, const float* dy, const float* x,
                                                           const float* weight, int C, float eps, bool accumulate) {
  GPU_SHARED(float, squares, [kMostWarps]);
  GPU_SHARED(float, products, [kMostWarps]);
  const int64_t row = int64_t(blockIdx.x) * C;
  dx += row, dy += row, x += row;
  float square = 0, product = 0;
  for_row<Access>(C, [&](int i) {
    const auto in = Access::load(x + i), d = Access::load(dy + i), w = Access::load(weight + i);
    for (int j = 0; j < Access::width; ++j) {
      square = fmaf(in.v[j], in.v[j], square);
      product = fmaf(d.v[j] * w.v[j], in.v[j], product);
    }
  });
  square = block_reduce<Sum>(square, 0.0f, squares);
  product = block_reduce<Sum>(product, 0.0f, products);
  const float inverse = 1.0f / sqrtf(square / float(C) + eps);
  const float back = -(inverse * inverse * inverse * (product / float(C)));
  for_row<Access>(C, [&](int i) {
    const auto in = Access::load(x + i), d = Access::load(dy + i), w = Access::load(weight + i);
    typename Access::Values out;
    for (int j = 0; j < Access::width; ++j) out.v[j] = fmaf(in.v[j], back, d.v[j] * w.v[j] * inverse);
    if (accumulate) {
      const auto there = Access::load(dx + i);
      for (int j = 0; j < Access::width; ++j) out.v[j] = there.v[j] + out.v[j];
    }
    Access::store(dx + i, out);
  });
}

}  // namespace

void CudaOps::layer_norm(float* y, const float* x, const float* weight, const float* bias, int T, int C, float eps) {
  with_row_access(C, {y, x, weight, bias}, [&](auto access) {
    using Access = decltype(access);
    run("layer_norm", layer_norm_kernel<Access>, dim3(unsigned(T)), dim3(row_threads(C / Access::width)), 0, y, x,
        weight, bias, C, eps);
  });
}

void CudaOps::rms_norm(float* y, const float* x, const float* weight, int T, int C, float eps) {
  with_row_access(C, {y, x, weight}, [&](auto access) {
    using Access = decltype(access);
    run("rms_norm", rms_norm_kernel<Access>, dim3(unsigned(T)), dim3(row_threads(C / Access::width)), 0, y, x, weight,
        C, eps);
  });
}

void CudaOps::rms_norm_dx(float* dx, const float* dy, const float* x, const float* weight, int T, int C, float eps,
                          Accumulate accumulate) {
  with_row_access(C, {dx, dy, x, weight}, [&](auto access) {
    using Access = decltype(access);
    run("rms_norm_dx", rms_norm_dx_kernel<Access>, dim3(unsigned(T)), dim3(row_threads(C / Access::width)), 0, dx, dy,
        x, weight, C, eps, accumulate == Accumulate::yes);
  });
}

}  // namespace minigpt4::cuda
