// How kernels that go over floats load and store them: four at a time where memory is aligned for it. Row kernels decide
// the grouping by the row's width alone, so that the order of their sums does not depend on where the row lies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

/// One float at a time.
struct Singles {
  static constexpr int width = 1;
  struct Values {
    float v[width];
  };
  __device__ static Values load(const float* p) { return {{*p}}; }
  __device__ static void store(float* p, const Values& x) { *p = x.v[0]; }
};

/// Four at a time, 16-byte aligned.
struct Fours {
  static constexpr int width = 4;
  struct Values {
    float v[width];
  };
  __device__ static Values load(const float* p) {
    const float4 x = *reinterpret_cast<const float4*>(p);
    return {{x.x, x.y, x.z, x.w}};
  }
  __device__ static void store(float* p, const Values& x) {
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  }
};

/// Four that belong together but lie anywhere: the groups of Fours with the accesses of Singles.
struct LooseFours {
  static constexpr int width = 4;
  using Values = Fours::Values;
  __device__ static Values load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  __device__ static void store(float* p, const Values& x) {
    for (int j = 0; j < width; ++j) p[j] = x.v[j];
  }
};

inline bool aligned16(std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(),
                     [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
}

/// Calls body(Access()) with the access of matrices [any, C] at these addresses (null is aligned).
template <class Body>
void with_row_access(int C, std::initializer_list<const void*> pointers, Body&& body) {
  if (C % Fours::width != 0) {
    body(Singles());
  } else if (aligned16(pointers)) {
    body(Fours());
  } else {
    body(LooseFours());
  }
}

/// Calls body(Access()) with the access of arrays at these addresses, for kernels whose values do not depend on each other.
template <class Body>
void with_value_access(std::initializer_list<const void*> pointers, Body&& body) {
  if (aligned16(pointers)) {
    body(Fours());
  } else {
    body(Singles());
  }
}

/// Threads of a block that works on a row of `packs` packs: about two packs a thread, so that a row of 4096 is 16 warps,
/// which hide each other's latency and leave the reduction over them short.
inline unsigned row_threads(int64_t packs) { return unsigned(std::clamp<int64_t>((packs + 63) / 64 * 32, 32, 1024)); }

/// The launch of kernels that go over n values by for_values.
inline constexpr unsigned kValueThreads = 256;
inline unsigned value_blocks(int64_t n, int width, int multiprocessors) {
  const int64_t all = (n / width + kValueThreads - 1) / kValueThreads;
  // 8 blocks fill a multiprocessor's 2048 threads; more would only come and go. What n % width leaves needs a block too.
  return n == 0 ? 0 : unsigned(std::clamp<int64_t>(all, 1, int64_t(multiprocessors) * 8));
}

/// Calls body(access, i) for the packs at i = 0, width, … of n values, and with Singles for the last n % width.
template <class Access, class Body>
__device__ void for_values(int64_t n, Body body) {
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = int64_t(gridDim.x) * blockDim.x;
  const int64_t packs = n / Access::width;
  for (int64_t pack = first; pack < packs; pack += step) body(Access(), pack * Access::width);
  if (packs * Access::width + first < n) body(Singles(), packs * Access::width + first);
}

/// Calls body(i) for this thread's packs at i = 0, width, … of a row of C values that the block shares; C is a multiple of
/// the width.
template <class Access, class Body>
__device__ void for_row(int C, Body body) {
  const int packs = C / Access::width;
  for (int pack = int(threadIdx.x); pack < packs; pack += int(blockDim.x)) body(pack * Access::width);
}

}  // namespace minigpt4::cuda
