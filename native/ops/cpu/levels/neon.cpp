// NEON with int8 dot products (Armv8.2): servers since the Neoverse N1, phones since the Cortex-A75 and Apple's A13,
// every Mac with an ARM processor. Compiled with flags of its own: include nothing here whose inline code another file
// could be given.
//
// Tiles for 32 registers. A fused multiply-add takes 4 cycles and there are 2 (Neoverse N1) or 4 (V1, Apple) of them a
// cycle, so 8 to 16 sums must be under way: 6 rows by the 16 columns of a group are 24, and the 4 weights and the
// row's value that a step needs leave 3 registers. Of quantized products the 8 code vectors of 4 outputs stay in
// registers for 8 rows: 8 sums, a row's dot product, its 2 vectors of activations, scale and minimum.
#define MINIGPT4_LEVEL neon
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_neon.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 6, kSums = 24, kQuantizedRows = 8, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/level_table.h"

namespace minigpt4::cpu {

const Level& level_neon() {
  static constexpr Level table = MINIGPT4_LEVEL::table("neon");
  return table;
}

}  // namespace minigpt4::cpu
