// NEON with int8 matrix products (i8mm, part of Armv8.6): servers since the Neoverse V1 and N2, phones since the
// Cortex-A710, Macs since the M2. Compiled with flags of its own: include nothing here whose inline code another file
// could be given.
// Tiles are those of neon.cpp, and rows of quantized products go in pairs.
#define MINIGPT4_LEVEL neon_i8mm
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_neon.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 6, kSums = 24, kQuantizedRows = 8, kGroupsAtOnce = 1;
constexpr bool kRowPairs = true;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/level_table.h"
// what kRowPairs asks for
#include "ops/cpu/kernels/matmul_pairs_neon.h"

namespace minigpt4::cpu {

const Level& level_neon_i8mm() {
  static constexpr Level table = MINIGPT4_LEVEL::table("neon-i8mm");
  return table;
}

}  // namespace minigpt4::cpu
