// AdamW, operation by operation as on the CPU, and the sum of squares in double: a block a stretch of fixed length, then
// one block over the stretches, so that the order of the additions depends on n alone.
#include <cmath>

#include "ops/cuda/block_reduce.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

/// What a step has besides the tensors, rounded once from double.
struct AdamwStep {
  float gradient_scale, keep, new1, beta2, new2, root_correction, epsilon, minus_step_size;
};

template <class Access>
__global__ void __launch_bounds__(kValueThreads)
    adamw_kernel(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, AdamwStep a) {
  for_values<Access>(n, [&](auto access, int64_t i) {
    auto m = access.load(first_moment + i), v = access.load(second_moment + i), value = access.load(w + i);
    const auto d = access.load(dw + i);
    for (int j = 0; j < access.width; ++j) {
      const float g = d.v[j] * a.gradient_scale;
      m.v[j] = fmaf(a.new1, g - m.v[j], m.v[j]);
      v.v[j] = fmaf(a.new2 * g, g, v.v[j] * a.beta2);
      const float root = sqrtf(v.v[j]) / a.root_correction + a.epsilon;
      value.v[j] = value.v[j] * a.keep + a.minus_step_size * m.v[j] / root;
    }
    access.store(first_moment + i, m);
    access.store(second_moment + i, v);
    access.store(w + i, value);
  });
}

constexpr int kSquareThreads = 256;
/// Values of a stretch: 32 a thread, enough loads in flight and few enough partial sums.
constexpr int kStretch = 32 * kSquareThreads;

/// Access: Fours or LooseFours, the same groups and so the same bits; x[n] of which the last n % 4 go one by one.
template <class Access>
__global__ void __launch_bounds__(kSquareThreads) square_stretches_kernel(double* sums, const float* x, int64_t n) {
  GPU_SHARED(double, parts, [kMostWarps]);
  const int64_t begin = int64_t(blockIdx.x) * kStretch;
  const int count = int(n - begin < kStretch ? n - begin : kStretch), whole = count - count % Access::width;
  x += begin;
  double sum = 0;
  for_row<Access>(whole, [&](int i) {
    const auto in = Access::load(x + i);
    for (int j = 0; j < Access::width; ++j) sum = fma(double(in.v[j]), double(in.v[j]), sum);
  });
  if (const int i = whole + int(threadIdx.x); i < count) sum = fma(double(x[i]), double(x[i]), sum);
  sum = block_reduce<Sum>(sum, 0.0, parts);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(1024) add_stretches_kernel(double* total, const double* sums, int64_t stretches) {
  GPU_SHARED(double, parts, [kMostWarps]);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < stretches; i += blockDim.x) sum += sums[i];
  sum = block_reduce<Sum>(sum, 0.0, parts);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

double CudaOps::squared_sum(const float* x, int64_t n) {
  if (n == 0) return 0;
  const int64_t stretches = (n + kStretch - 1) / kStretch;
  auto* sums = static_cast<double*>(scratch(Scratch::reduction, size_t(stretches + 1) * sizeof(double)));
  double* total = sums + stretches;
  const auto kernel = aligned16({x}) ? square_stretches_kernel<Fours> : square_stretches_kernel<LooseFours>;
  run("squared_sum", kernel, dim3(unsigned(stretches)), dim3(kSquareThreads), 0, sums, x, n);
  run("squared_sum", add_stretches_kernel, dim3(1), dim3(row_threads(stretches)), 0, total, sums, stretches);
  double found = 0;
  download(&found, total, sizeof found);
  return found;
}

void CudaOps::adamw(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, const Adamw& a) {
  const double correction1 = 1 - std::pow(a.beta1, double(a.step)), correction2 = 1 - std::pow(a.beta2, double(a.step));
  const AdamwStep step{
      float(a.gradient_scale), float(1 - a.rate * a.weight_decay), float(1 - a.beta1), float(a.beta2),
      float(1 - a.beta2),      float(std::sqrt(correction2)),      float(a.epsilon),   float(-(a.rate / correction1))};
  with_value_access({w, first_moment, second_moment, dw}, [&](auto access) {
    using Access = decltype(access);
    run("adamw", adamw_kernel<Access>, value_blocks(n, Access::width, multiprocessors_), kValueThreads, 0, w,
        first_moment, second_moment, dw, n, step);
  });
}

}  // namespace minigpt4::cuda
