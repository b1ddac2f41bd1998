// Sums and maxima over a warp and a block: by shuffles within a warp, then over the warps' results in shared memory. The
// order is fixed by the number of threads alone, and all threads get the same bits.
#pragma once

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
/// Warps of the largest block.
inline constexpr int kMostWarps = 32;

struct Sum {
  template <class Value>
  __device__ static Value of(Value a, Value b) {
    return a + b;
  }
};
struct Maximum {
  template <class Value>
  __device__ static Value of(Value a, Value b) {
    return a < b ? b : a;
  }
};

struct Minimum {
  template <class Value>
  __device__ static Value of(Value a, Value b) {
    return b < a ? b : a;
  }
};

/// Of the warp's 32 values, in all lanes. Each step is a op b in one lane and b op a in another, which are the same.
template <class Operation, class Value>
__device__ Value warp_reduce(Value value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = Operation::of(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

/// Of the values of a block of whole warps (one-dimensional), in all threads. `parts` is shared memory for kMostWarps
/// values; it may be used for something else after the next __syncthreads().
template <class Operation, class Value>
__device__ Value block_reduce(Value value, Value neutral, Value* parts) {
  value = warp_reduce<Operation>(value);
  const unsigned lane = threadIdx.x % kWarp;
  if (lane == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  return warp_reduce<Operation>(lane < blockDim.x / kWarp ? parts[lane] : neutral);
}

}  // namespace minigpt4::cuda
