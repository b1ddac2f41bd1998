// Finding places in a distribution without sorting it: where a running sum passes a target, and the key at which the heaviest
// entries reach a mass. Masses are integers, so that no result depends on the order in which threads come.
#pragma once

#include "ops/cuda/block_reduce.h"
#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

using Mass = unsigned long long;

/// Of 32-bit keys' 11, 11 and 10 bits.
inline constexpr int kMassBits = 11;
inline constexpr int kMassBins = 1 << kMassBits;

/// An index, its mass and the mass of all indices below it.
struct Place {
  int index;
  Mass mass, before;
};

/// A key, the mass of all greater keys and that of all equal ones.
struct Cut {
  uint32_t key;
  Mass above, at;
};

/// The shared memory of a search, for a block of whole warps.
struct MassSearch {
  Mass* sums;    // [kMostWarps]
  Place* place;  // [1]
  // [kMassBins] each, halves of 64-bit sums: shared memory adds 32-bit numbers by itself, 64-bit ones in a loop
  unsigned *low, *high;

  /// The first of `count` indices at which the sum of mass(index), from index 0 on and including its own, is more than
  /// target(sum of all), which must be less than that sum. All threads call it and get the same.
  template <class MassOf, class TargetOf>
  __device__ Place passes(int count, MassOf mass, TargetOf target) const;

  /// The greatest key such that entries with it or a greater one have at least `wanted` mass, wanted > 0. each(add) calls
  /// add(key, mass) for the calling thread's entries, the same ones every time it is called; together the threads' have
  /// the mass. All threads call it and get the same.
  template <class Each>
  __device__ Cut heaviest(Mass wanted, Each each) const;

 private:
  __device__ void add(int bin, Mass mass) const {
    const unsigned part = unsigned(mass), before = atomicAdd(&low[bin], part);
    const unsigned rest = unsigned(mass >> 32) + (before + part < before ? 1u : 0u);
    if (rest != 0) atomicAdd(&high[bin], rest);
  }
};

/// The sum of the lanes' values up to and including the own.
__device__ inline Mass running_sum(Mass value) {
  const unsigned lane = threadIdx.x % kWarp;
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const Mass other = __shfl_up_sync(kAllLanes, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

// A warp sums a stretch of the indices; the warp in whose stretch the target falls walks it, 32 indices a step.
template <class MassOf, class TargetOf>
__device__ Place MassSearch::passes(int count, MassOf mass, TargetOf target) const {
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp), warps = int(blockDim.x / kWarp);
  const int stretch = ((count + warps - 1) / warps + kWarp - 1) / kWarp * kWarp;
  const int begin = min(warp * stretch, count), end = min(begin + stretch, count);
  Mass sum = 0;
  for (int i = begin + lane; i < end; i += kWarp) sum += mass(i);
  sum = warp_reduce<Sum>(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  const Mass own = lane < warps ? sums[lane] : 0;
  const Mass through = running_sum(own);
  const Mass wanted = target(__shfl_sync(kAllLanes, through, kWarp - 1));
  const int chosen = __ffs(int(__ballot_sync(kAllLanes, through > wanted))) - 1;
  Mass before = __shfl_sync(kAllLanes, through - own, chosen < 0 ? 0 : chosen);
  if (warp == chosen) {
    for (int i = begin; i < end; i += kWarp) {
      const Mass here = i + lane < end ? mass(i + lane) : 0;
      const Mass up_to = before + running_sum(here);
      const int first = __ffs(int(__ballot_sync(kAllLanes, up_to > wanted))) - 1;
      if (first >= 0) {
        if (lane == first) *place = {i + lane, here, up_to - here};
        break;
      }
      before = __shfl_sync(kAllLanes, up_to, kWarp - 1);
    }
  }
  __syncthreads();
  return *place;
}

// Digit by digit from the top: a histogram of the entries that share the digits found so far, and the bin in which the
// running mass from the greatest digit down reaches what is wanted.
template <class Each>
__device__ Cut MassSearch::heaviest(Mass wanted, Each each) const {
  Cut cut = {0, 0, 0};
  for (int end = 32, begin; end > 0; end = begin) {
    begin = max(end - kMassBits, 0);
    const int bins = 1 << (end - begin);
    for (int i = int(threadIdx.x); i < bins; i += int(blockDim.x)) low[i] = high[i] = 0;
    __syncthreads();
    each([&](uint32_t key, Mass mass) {
      if (mass != 0 && uint64_t(key) >> end == cut.key) add(int(key >> begin) & (bins - 1), mass);
    });
    __syncthreads();
    const Place found = passes(
        bins,
        [&](int i) {
          const int bin = bins - 1 - i;
          return Mass(high[bin]) << 32 | low[bin];
        },
        [&](Mass) { return wanted - 1 - cut.above; });
    cut.key = cut.key << (end - begin) | uint32_t(bins - 1 - found.index);
    cut.above += found.before;
    cut.at = found.mass;
  }
  return cut;
}

}  // namespace minigpt4::cuda
