// AMX with int8 and bf16 beside AVX-512: x86 servers since 2023 (Sapphire Rapids). Compiled with flags of its own: include
// nothing here whose inline code another file could be given.
#define MINIGPT4_LEVEL amx
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_avx512.h"
// over its vectors
#include "ops/cpu/kernels/dot_words.h"
#include "ops/cpu/kernels/tile_unit_amx.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 12, kSums = 24, kQuantizedRows = 16, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/tile_level.h"

namespace minigpt4::cpu {

const Level& level_amx() {
  static constexpr Level table = MINIGPT4_LEVEL::tile_table("amx");
  return table;
}

}  // namespace minigpt4::cpu
