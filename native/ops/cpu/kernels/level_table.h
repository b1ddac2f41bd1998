// Every kernel over the level's vectors, and the table of them. A level file defines MINIGPT4_LEVEL and the tile sizes,
// includes its simd_*.h, then this.
//   kRows           rows of an activation tile for float products
//   kSums           vectors of running sums that fit into the registers beside a tile's weights
//   kQuantizedRows  rows of an activation tile for quantized products
//   kGroupsAtOnce   groups of outputs that those rows are multiplied with at once; above 1 by a matmul_groups that the
//                   level file includes behind this
//   kRowPairs       whether those rows go in pairs, by a dot_pairs that the level file includes behind this
#pragma once

#include "ops/cpu/kernels/lanes16.h"
// lanes16.h is what all the others are written in
#include "ops/cpu/kernels/block_range.h"
#include "ops/cpu/kernels/exponential.h"
#include "ops/cpu/kernels/tile.h"
// these two are what the following use
#include "ops/cpu/kernels/elementwise.h"
#include "ops/cpu/kernels/matmul_float.h"
#include "ops/cpu/kernels/matmul_quantized.h"
#include "ops/cpu/kernels/norm.h"
#include "ops/cpu/kernels/softmax.h"
// and the attentions use all
#include "ops/cpu/kernels/attention_dense.h"
#include "ops/cpu/kernels/kv_floats.h"
#include "ops/cpu/kernels/kv_q8.h"
// which two it reads through
#include "ops/cpu/kernels/attention_paged.h"
// training
#include "ops/cpu/kernels/attention_gradient.h"
#include "ops/cpu/kernels/elementwise_gradient.h"
#include "ops/cpu/kernels/loss.h"
#include "ops/cpu/kernels/matmul_gradient.h"
#include "ops/cpu/kernels/optimizer.h"
// what they are measured against
#include "ops/cpu/kernels/peak.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {

static_assert(kRows <= kMostTileRows && kQuantizedRows <= kMostTileRows);
static_assert(kRowsAtOnce % kRows == 0 && kRowsAtOnce % kQuantizedRows == 0 && kGradientQueries % kRows == 0);

constexpr Level table(const char* name) {
  return {.name = name,
          .float_rows = kRows,
          .product_rows = kRows,
          .product_depth = 1,
          .product_groups = 4,  // whose weights and sums share level 2 with the activations
          .quantized_rows = kQuantizedRows,
          .quantized_groups = kGroupsAtOnce > 1 ? kGroupsAtOnce : 4,  // what is multiplied at once, or likewise
          .make_tile = interleave_tile,
          .quantized_scratch = no_scratch,
          .matmul_float = matmul_float,
          .matmul_quantized = matmul_quantized,
          .quantize_row = quantize_row,
          .layer_norm = layer_norm,
          .rms_norm = rms_norm,
          .gelu = gelu,
          .silu_mul = silu_mul,
          .exponential = exponential,
          .to_half = to_half,
          .to_q8 = to_q8,
          .attend_dense = attend_dense,
          .attend_paged = attend_paged,
          .matmul_dx = matmul_dx,
          .matmul_dw = matmul_dw,
          .rms_norm_dx = rms_norm_dx,
          .silu_mul_dx = silu_mul_dx,
          .attend_dx = attend_dx,
          .softmax = softmax,
          .adamw = adamw,
          .peaks = {.read = read_peak, .fma = fma_peak, .dot = dot_peak}};
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
