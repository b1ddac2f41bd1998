// y = x · wᵀ of F16 and BF16 weights for more rows than decoding has: prefill, pictures and training.
//
// A block computes a tile of outputs by tokens, its warps up to 64 by 64 of it each (128 sums a thread); a stage is one step
// of 32 columns, and four stages come through a ring in shared memory (cp.async). Both operands lie in fragment order in
// global memory already, so a stage is copied as it lies, and a fragment is one 16-byte load a lane, free of bank conflicts.
// Why 128 outputs by 256 tokens is the largest: the sums take half of the registers; a step of it reads 64 KB of fragments
// (512 clocks) and copies 24 KB, while its 512 matrix instructions keep four matrix units busy for 800 clocks and more.
//
// An output is one chain of matrix instructions from the first column to the last, whatever the tile: a row's bits do not
// depend on how many rows there are. There is no split of the columns to be added up: a second set of sums would halve the
// tile and double what it reads.
#pragma once

#include "ops/cuda/matmul_half_few.h"

namespace minigpt4::cuda {

inline constexpr TensorTile kHalfTiles[] = {
    {2, 4, 4, 8, 1, 100},  // 128 outputs x 256 tokens
    {2, 2, 4, 8, 2, 110},  // 128 x 128
    {2, 2, 2, 4, 4, 150},  // 64 x 64
    {2, 2, 1, 4, 4, 200},  // 32 x 64
};
inline constexpr int kManyStages = 4;
constexpr int many_stage_bytes(const TensorTile& tile) {
  return tile.block_output_tiles() * kHalfTileBytes + tile.block_token_tiles() * kHalfTokenTileBytes;
}

template <Type type, int shape>
__global__ void __launch_bounds__(kHalfTiles[shape].threads(), kHalfTiles[shape].blocks)
    matmul_half_many(const HalfProducts p) {
  gpu::wait_for_previous();
  constexpr TensorTile tile = kHalfTiles[shape];
  constexpr int warps = tile.warps(), stage_bytes = many_stage_bytes(tile);
  constexpr int weight_bytes = tile.block_output_tiles() * kHalfTileBytes;
  gpu::DynamicShared shared;
  uint8_t* const ring = shared.take<uint8_t>(kManyStages * stage_bytes);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const HalfProducts::One& w = p.of_block(int(blockIdx.y));
  const int first_row_tile = (int(blockIdx.y) - w.first_block) * tile.block_output_tiles();
  const int first_token_tile = int(blockIdx.x) * tile.block_token_tiles();

  // A stage is cut into pieces of 512 bytes, a warp's load each. Beyond the product's end the last tile is read once more:
  // what comes of it is not written.
  constexpr int weight_pieces = 2 * tile.block_output_tiles() / warps, token_pieces = tile.block_token_tiles() / warps;
  static_assert(weight_pieces * warps == 2 * tile.block_output_tiles() &&
                token_pieces * warps == tile.block_token_tiles());
  const uint8_t *weights[weight_pieces], *tokens[token_pieces];
#pragma unroll
  for (int i = 0; i < weight_pieces; ++i) {
    const int piece = warp + i * warps, row_tile = min(first_row_tile + piece / 2, w.row_tiles - 1);
    weights[i] = w.weights + int64_t(row_tile) * p.steps * kHalfTileBytes + piece % 2 * 512 + 16 * lane;
  }
#pragma unroll
  for (int i = 0; i < token_pieces; ++i) {
    const int token_tile = min(first_token_tile + warp + i * warps, p.token_tiles - 1);
    tokens[i] = p.rows + int64_t(token_tile) * p.steps * kHalfTokenTileBytes + 16 * lane;
  }
  const auto load = [&](int step) {
    if (step < p.steps) {
      uint8_t* const stage = ring + step % kManyStages * stage_bytes + 16 * lane;
#pragma unroll
      for (int i = 0; i < weight_pieces; ++i) {
        gpu::cp_async16(stage + (warp + i * warps) * 512, weights[i]);
        weights[i] += kHalfTileBytes;
      }
#pragma unroll
      for (int i = 0; i < token_pieces; ++i) {
        gpu::cp_async16(stage + weight_bytes + (warp + i * warps) * 512, tokens[i]);
        tokens[i] += kHalfTokenTileBytes;
      }
    }
    gpu::cp_commit();
  };

  const int warp_row_tile = warp % tile.output_warps * tile.output_tiles;
  const int warp_token_tile = warp / tile.output_warps * tile.token_tiles;
  float sums[tile.output_tiles][tile.token_tiles][4] = {};
#pragma unroll
  for (int i = 0; i < kManyStages - 1; ++i) load(i);
  for (int step = 0; step < p.steps; ++step) {
    gpu::cp_wait<kManyStages - 2>();
    __syncthreads();
    load(step + kManyStages - 1);  // into the stage that all have left before the barrier
    const uint8_t* const stage = ring + step % kManyStages * stage_bytes + 16 * lane;
    const uint8_t* const a = stage + warp_row_tile * kHalfTileBytes;
    const uint8_t* const b = stage + weight_bytes + warp_token_tile * kHalfTokenTileBytes;
    uint4 right[tile.token_tiles];
#pragma unroll
    for (int t = 0; t < tile.token_tiles; ++t) right[t] = *reinterpret_cast<const uint4*>(b + t * kHalfTokenTileBytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int r = 0; r < tile.output_tiles; ++r) {
        const uint4 left = *reinterpret_cast<const uint4*>(a + r * kHalfTileBytes + half * 512);
#pragma unroll
        for (int t = 0; t < tile.token_tiles; ++t) {
          mma_half<type>(sums[r][t], left, half ? right[t].z : right[t].x, half ? right[t].w : right[t].y);
        }
      }
    }
  }
  gpu::cp_wait<0>();
#pragma unroll
  for (int r = 0; r < tile.output_tiles; ++r) {
    write_sums(sums[r], w.to, 16 * (first_row_tile + warp_row_tile + r), 8 * (first_token_tile + warp_token_tile));
  }
}

}  // namespace minigpt4::cuda
