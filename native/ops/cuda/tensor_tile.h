// What the tensor-core products share: the shapes of their tiles and which one is quickest, the matrix instruction of a
// type, and where the sums go. Weights are always operand A (16 outputs), rows of activations operand B (8 tokens).
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/dtype.h"
#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

/// A block's tile: warps side by side, each of so many fragments of 16 outputs by so many of 8 tokens.
struct TensorTile {
  int output_warps, token_warps;
  int output_tiles, token_tiles;  // of a warp
  int blocks;                     // that shall fit on a multiprocessor: bounds the registers
  int cost;                       // estimated time of a multiply-add, in percent of the largest tile's

  constexpr int warps() const { return output_warps * token_warps; }
  constexpr int threads() const { return 32 * warps(); }
  constexpr int block_output_tiles() const { return output_warps * output_tiles; }
  constexpr int block_token_tiles() const { return token_warps * token_tiles; }
  constexpr int outputs() const { return 16 * block_output_tiles(); }
  constexpr int tokens() const { return 8 * block_token_tiles(); }
  dim3 grid(int64_t all_outputs, int all_tokens) const {
    // neighbours read the same weights: these leave the device's memory once, the tokens stay in its cache
    return dim3(unsigned((all_tokens + tokens() - 1) / tokens()), unsigned((all_outputs + outputs() - 1) / outputs()));
  }
};

/// The tile whose busiest multiprocessor is done first: a large one moves fewer bytes for a product, a small one gives work
/// to all multiprocessors. Every tile gives the same bits.
inline size_t quickest_tile(std::span<const TensorTile> tiles, int64_t outputs, int tokens, int multiprocessors) {
  const auto time = [&](const TensorTile& tile) {
    const dim3 grid = tile.grid(outputs, tokens);
    const int64_t blocks = int64_t(grid.x) * grid.y;
    return (blocks + multiprocessors - 1) / multiprocessors * tile.outputs() * tile.tokens() * tile.cost;
  };
  const auto best = std::min_element(tiles.begin(), tiles.end(),
                                     [&](const TensorTile& a, const TensorTile& b) { return time(a) < time(b); });
  return size_t(best - tiles.begin());
}

/// sums[16, 8] += a · b, float32 sums of products of F16 or BF16 values.
template <Type type>
__device__ inline void mma_half(float (&sums)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  const uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[2] = {b0, b1};
  if constexpr (type == Type::F16) {
    gpu::mma_f16(sums, left, right);
  } else {
    gpu::mma_bf16(sums, left, right);
  }
}

/// Where the sums of a product go: y = sums + bias, or y + (sums + bias).
struct SumsTo {
  float* y;           // [tokens, outputs]
  const float* bias;  // [outputs] or null
  int outputs, tokens;
  bool accumulate;
};

/// Writes a warp's 16 outputs from `output` on for 8 · token_tiles tokens from `token` on; those beyond the product's are
/// left out. Eight lanes write a sector of 32 bytes, so no bytes are moved in vain where outputs are a multiple of 8.
template <int token_tiles>
__device__ inline void write_sums(const float (&sums)[token_tiles][4], const SumsTo& to, int output, int token) {
  const int g = int(threadIdx.x) % 32 / 4, q = int(threadIdx.x) % 4;
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const int row = output + g + 8 * lower;
    if (row >= to.outputs) continue;
    const float bias = to.bias ? to.bias[row] : 0.0f;
    float held[2 * token_tiles];
    if (to.accumulate) {  // all reads before the first write, so that they are under way together
#pragma unroll
      for (int i = 0; i < 2 * token_tiles; ++i) {
        const int column = token + i / 2 * 8 + 2 * q + i % 2;
        held[i] = column < to.tokens ? to.y[int64_t(column) * to.outputs + row] : 0.0f;
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * token_tiles; ++i) {
      const int column = token + i / 2 * 8 + 2 * q + i % 2;
      if (column >= to.tokens) continue;
      float value = sums[i / 2][2 * lower + i % 2];
      if (to.bias) value += bias;
      if (to.accumulate) value += held[i];
      to.y[int64_t(column) * to.outputs + row] = value;
    }
  }
}

}  // namespace minigpt4::cuda
