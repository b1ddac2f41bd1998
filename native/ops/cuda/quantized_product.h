// The one arithmetic of quantized products, which decoding and prefill share so that a row has the same bits in both.
//
// Of an output and a token, c is a chunk of the columns (chunks.h), and within it, for each run (a block of 32, or its
// halves where scales go by 16), in order:
//
//   sum = fma(Σ codes · activations (exact), scale · d, sum);  sum = fma(minimum, (Σ activations) · d, sum)
//
// from 0 on; then the chunks' sums from the first on, starting at 0; then the bias; then what was there.
#pragma once

#include "ops/cuda/chunks.h"
#include "ops/cuda/prepared_rows.h"
#include "ops/cuda/quantized_tile.h"

namespace minigpt4::cuda {

/// Products of one launch, side by side: their blocks follow one another.
struct QuantizedProducts {
  struct One {
    const uint8_t* w = nullptr;
    float* y = nullptr;           // [T, rows]
    const float* bias = nullptr;  // [rows], may be null
    int rows = 0;
    bool accumulate = false;
    int first_block = 0;  // of outputs; the grid has all of an output's blocks of tokens, then the next one's
  } of[kProductsAtOnce];
  int count = 0;
  int64_t cols = 0;

  __device__ const One& of_block(int block) const {
    int i = 0;
    while (i + 1 < count && block >= of[i + 1].first_block) ++i;
    return of[i];
  }
};

/// A token tile's part of a lane for one block: codes b[0], b[1] of token g, scales of tokens 2q and 2q + 1.
struct RowWords {
  uint2 codes;
  uint4 scales;  // the Q8Scale of token 2q, then of 2q + 1
};
static_assert(sizeof(Q8Scale) == 8);
/// Bytes of codes and of scales for a tile of tokens by 64 columns, and of each of its two blocks.
inline constexpr int kRowTileCodes = 512, kRowTileScales = 128;
inline constexpr int kRowBlockCodes = kRowTileCodes / 2, kRowBlockScales = kRowTileScales / 2;

/// Adds the products of one block of 16 outputs by 8 tokens: sum[j] is of row g + 8 (j / 2), token 2q + j % 2.
template <Type type>
__device__ inline void add_block(float (&sum)[4], const uint32_t (&a)[4], const BlockFactors<type>& factors,
                                 const RowWords& x) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  const uint32_t rows[2] = {x.codes.x, x.codes.y};
  const float d[2] = {std::bit_cast<float>(x.scales.x), std::bit_cast<float>(x.scales.z)};
  const int32_t sums[2] = {int32_t(x.scales.y), int32_t(x.scales.w)};  // of the block's halves, 16 bits each
#pragma unroll
  for (int run = 0; run < layout.runs; ++run) {
    int32_t c[4] = {kIntegerStart, kIntegerStart, kIntegerStart, kIntegerStart};
    if constexpr (layout.runs == 1) {
      gpu::mma_s8_k32(c, a, rows);
    } else {
      const uint32_t half[2] = {a[2 * run], a[2 * run + 1]};
      gpu::mma_s8_k16(c, half, rows[run]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] = fmaf(float_of_started(c[j]), factors.scale[j / 2][run] * d[j % 2], sum[j]);
    if constexpr (layout.minimum) {
      float total[2];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const int32_t low = int32_t(uint32_t(sums[t]) << 16) >> 16, high = sums[t] >> 16;
        total[t] = small_to_float(layout.runs == 1 ? low + high : run ? high : low) * d[t];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[j] = fmaf(factors.minimum[j / 2][run], total[j % 2], sum[j]);
    }
  }
}

/// The kernels, chosen by type: matmul_quantized_decode.cu and matmul_quantized_prefill.cu.
using QuantizedKernel = void (*)(QuantizedProducts, PreparedRows);
struct QuantizedLaunch {
  QuantizedKernel kernel;
  int threads;
  size_t shared;  // bytes
  int outputs;    // of a block
  int tokens;     // of a block
};
/// The kernel that is quick for a few rows: up to kDecodeTokens in one block, groups of so many beyond.
inline constexpr int kDecodeTokens = 32;
QuantizedLaunch quantized_decode(Type type, int T);
/// For more rows than that: 128 outputs by 64 tokens a block, or the smaller 64 by 64.
QuantizedLaunch quantized_prefill(Type type, bool smaller);
/// Blocks that T tokens are cut into.
constexpr int token_blocks(int T, int tokens) { return (T + tokens - 1) / tokens; }

}  // namespace minigpt4::cuda
