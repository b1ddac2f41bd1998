// y = x · wᵀ of F16 and BF16 weights for 1 to 32 rows (decoding): the weights are read once, and reading them is all that
// takes time.
//
// A block is two row tiles (32 outputs), a warp each, and all the rows. Weights and prepared rows come through a ring in
// shared memory (cp.async), four steps of 32 columns a stage: the ring, not warps that wait, keeps 32 KB and more of weights
// under way on each multiprocessor, which is what the memory of a large card needs. Two row tiles share the rows' fragments;
// with four, a matrix of 4096 rows would leave half of 132 multiprocessors without work.
//
// An output is one chain of matrix instructions from the first column to the last, as in matmul_half_many.h: the same bits.
// Only one link of it is open at a time, but 256 links (4096 columns) of some 33 clocks take 5 µs where the weights' bytes
// take 11 µs.
#pragma once

#include "ops/cuda/half_layout.h"
#include "ops/cuda/prepared_rows.h"
#include "ops/cuda/tensor_tile.h"

namespace minigpt4::cuda {

inline constexpr int kHalfTokenTileBytes = 512;  // 8 tokens by 32 columns, prepared_rows.h

/// Products of one launch, side by side: their blocks follow one another. Weights in tiles of half_layout.h, rows as
/// prepared_rows.h has them.
struct HalfProducts {
  struct One {
    const uint8_t* weights;
    SumsTo to;
    int row_tiles;
    int first_block;
  } of[kProductsAtOnce];
  int count;
  const uint8_t* rows;
  int steps;  // of 32 columns
  int token_tiles;

  __device__ const One& of_block(int block) const {
    int i = 0;
    while (i + 1 < count && block >= of[i + 1].first_block) ++i;
    return of[i];
  }
};

inline constexpr int kFewRowTiles = 2, kFewSteps = 4;
constexpr int few_stages(int token_tiles) { return token_tiles > 2 ? 5 : 6; }
constexpr int few_stage_bytes(int token_tiles) {
  return kFewSteps * (kFewRowTiles * kHalfTileBytes + token_tiles * kHalfTokenTileBytes);
}

template <Type type, int token_tiles>
__global__ void __launch_bounds__(32 * kFewRowTiles) matmul_half_few(const HalfProducts p) {
  gpu::wait_for_previous();
  constexpr int stages = few_stages(token_tiles), threads = 32 * kFewRowTiles;
  constexpr int weight_row = kFewSteps * kHalfTileBytes, token_row = kFewSteps * kHalfTokenTileBytes;
  gpu::DynamicShared shared;
  uint8_t* const ring = shared.take<uint8_t>(stages * few_stage_bytes(token_tiles));
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const HalfProducts::One& w = p.of_block(int(blockIdx.x));
  const int first_tile = (int(blockIdx.x) - w.first_block) * kFewRowTiles;
  const int count = (p.steps + kFewSteps - 1) / kFewSteps;

  const auto load = [&](int index) {
    if (index < count) {
      uint8_t* const stage = ring + index % stages * few_stage_bytes(token_tiles);
      const int begin = index * kFewSteps, left = p.steps - begin;
#pragma unroll
      for (int i = 0; i < kFewRowTiles * weight_row / (16 * threads); ++i) {
        const int at = 16 * (thread + i * threads), tile = at / weight_row, byte = at % weight_row;
        if (byte / kHalfTileBytes < left && first_tile + tile < w.row_tiles) {
          gpu::cp_async16(stage + at,
                          w.weights + (int64_t(first_tile + tile) * p.steps + begin) * kHalfTileBytes + byte);
        }
      }
#pragma unroll
      for (int i = 0; i < token_tiles * token_row / (16 * threads); ++i) {
        const int at = 16 * (thread + i * threads), tile = at / token_row, byte = at % token_row;
        if (byte / kHalfTokenTileBytes < left) {
          // of the tiles of 8 tokens that this kernel has room for, those that are not there count as zeros
          const bool there = tile < p.token_tiles;
          const int64_t number = int64_t(there ? tile : 0) * p.steps + begin;
          gpu::cp_async16(stage + kFewRowTiles * weight_row + at, p.rows + number * kHalfTokenTileBytes + byte, there);
        }
      }
    }
    gpu::cp_commit();
  };

  float sums[token_tiles][4] = {};
  const auto add_step = [&](const uint8_t* weights, const uint8_t* tokens) {
    const uint4 a0 = *reinterpret_cast<const uint4*>(weights);
    const uint4 a1 = *reinterpret_cast<const uint4*>(weights + kHalfTileBytes / 2);
#pragma unroll
    for (int t = 0; t < token_tiles; ++t) {
      const uint4 b = *reinterpret_cast<const uint4*>(tokens + t * token_row);
      mma_half<type>(sums[t], a0, b.x, b.y);
      mma_half<type>(sums[t], a1, b.z, b.w);
    }
  };

#pragma unroll
  for (int i = 0; i < stages - 1; ++i) load(i);
  for (int index = 0; index < count; ++index) {
    gpu::cp_wait<stages - 2>();
    __syncthreads();
    load(index + stages - 1);  // into the stage that all have left before the barrier
    if (first_tile + warp >= w.row_tiles) continue;
    const uint8_t* const stage = ring + index % stages * few_stage_bytes(token_tiles);
    const uint8_t* const weights = stage + warp * weight_row + 16 * lane;
    const uint8_t* const tokens = stage + kFewRowTiles * weight_row + 16 * lane;
    const int left = p.steps - index * kFewSteps;
    if (left >= kFewSteps) {
#pragma unroll
      for (int s = 0; s < kFewSteps; ++s) add_step(weights + s * kHalfTileBytes, tokens + s * kHalfTokenTileBytes);
    } else {
      for (int s = 0; s < left; ++s) add_step(weights + s * kHalfTileBytes, tokens + s * kHalfTokenTileBytes);
    }
  }
  gpu::cp_wait<0>();
  write_sums(sums, w.to, 16 * (first_tile + warp), 0);
}

}  // namespace minigpt4::cuda
