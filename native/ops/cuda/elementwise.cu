// Activation functions, the gradient of one, and fill: value by value, every thread takes packs a grid's width apart.
// Bound by memory: 256 threads a block, eight blocks a multiprocessor, 16 bytes a load.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

/// x · Φ(x) with Φ(x) = erfc(-x / √2) / 2, which keeps its relative precision where 1 + erf would cancel.
template <class Access>
__global__ void __launch_bounds__(kValueThreads) gelu_kernel(float* y, const float* x, int64_t n) {
  for_values<Access>(n, [&](auto access, int64_t i) {
    auto of = access.load(x + i);
    for (float& v : of.v) v = 0.5f * v * erfcf(v * -0.70710678f);
    access.store(y + i, of);
  });
}

template <class Access>
__global__ void __launch_bounds__(kValueThreads)
    silu_mul_kernel(float* y, const float* gate, const float* up, int64_t n) {
  for_values<Access>(n, [&](auto access, int64_t i) {
    auto g = access.load(gate + i);
    const auto u = access.load(up + i);
    for (int j = 0; j < access.width; ++j) g.v[j] = g.v[j] / (1.0f + expf(-g.v[j])) * u.v[j];
    access.store(y + i, g);
  });
}

/// With s = sigmoid(gate): dup = dy · gate · s, dgate = dy · up · s · (1 + gate · (1 - s)).
template <class Access>
__global__ void __launch_bounds__(kValueThreads)
    silu_mul_dx_kernel(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) {
  for_values<Access>(n, [&](auto access, int64_t i) {
    auto d = access.load(dy + i), x = access.load(gate + i);
    const auto u = access.load(up + i);
    for (int j = 0; j < access.width; ++j) {
      const float e = expf(fminf(-x.v[j], 88.0f));  // finite, for e · s below
      const float s = 1.0f / (1.0f + e);
      const float slope = s * fmaf(x.v[j], e * s, 1.0f);  // 1 - s is e · s, without cancellation
      x.v[j] = d.v[j] * (x.v[j] * s);
      d.v[j] = d.v[j] * u.v[j] * slope;
    }
    access.store(dup + i, x);
    access.store(dgate + i, d);
  });
}

template <class Access>
__global__ void __launch_bounds__(kValueThreads) fill_kernel(float* y, float value, int64_t n) {
  for_values<Access>(n, [&](auto access, int64_t i) {
    typename decltype(access)::Values all;
    for (float& v : all.v) v = value;
    access.store(y + i, all);
  });
}

}  // namespace

void CudaOps::gelu(float* y, const float* x, int64_t n) {
  with_value_access({y, x}, [&](auto access) {
    using Access = decltype(access);
    run("gelu", gelu_kernel<Access>, value_blocks(n, Access::width, multiprocessors_), kValueThreads, 0, y, x, n);
  });
}

void CudaOps::silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  with_value_access({y, gate, up}, [&](auto access) {
    using Access = decltype(access);
    run("silu_mul", silu_mul_kernel<Access>, value_blocks(n, Access::width, multiprocessors_), kValueThreads, 0, y,
        gate, up, n);
  });
}

void CudaOps::silu_mul_dx(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) {
  with_value_access({dgate, dup, dy, gate, up}, [&](auto access) {
    using Access = decltype(access);
    run("silu_mul_dx", silu_mul_dx_kernel<Access>, value_blocks(n, Access::width, multiprocessors_), kValueThreads, 0,
        dgate, dup, dy, gate, up, n);
  });
}

void CudaOps::fill(float* y, float value, int64_t n) {
  with_value_access({y}, [&](auto access) {
    using Access = decltype(access);
    run("fill", fill_kernel<Access>, value_blocks(n, Access::width, multiprocessors_), kValueThreads, 0, y, value, n);
  });
}

}  // namespace minigpt4::cuda
