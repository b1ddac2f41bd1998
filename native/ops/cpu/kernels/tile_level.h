// The table of a level with a matrix unit: that of its vectors, but for products. Its file includes a simd_*.h, gives the
// sizes of level_table.h, includes a tile_unit_*.h, then this.
#pragma once

#include "ops/cpu/kernels/level_table.h"
// then
#include "ops/cpu/kernels/tiles_in_use.h"
// which the products use
#include "ops/cpu/kernels/matmul_tiles_float.h"
#include "ops/cpu/kernels/matmul_tiles_quantized.h"
#include "ops/cpu/kernels/peak_tiles.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {

static_assert(kRowsAtOnce % kTileRows == 0);

constexpr Level tile_table(const char* name) {
  Level level = table(name);
  level.product_rows = kTileRows;
  level.product_depth = kTileDepth;
  // Twice those of fused multiply-adds: a piece's activations come from level 2 or 3, and the unit waits for them more.
  level.product_groups = 8;
  level.make_tile = make_bf16_tile;
  level.quantized_scratch = quantized_tiles_scratch;
  level.matmul_float = matmul_float_tiles;
  level.matmul_quantized = matmul_quantized_tiles;
  level.matmul_dx = matmul_dx_tiles;
  level.peaks.tile_int8 = tile_int8_peak;
  level.peaks.tile_bf16 = tile_bf16_peak;
  return level;
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
