// AVX2 with FMA and F16C: x86 since about 2013. Compiled with flags of its own: include nothing here whose inline code
// another file could be given.
#define MINIGPT4_LEVEL avx2
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_avx2.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 6, kSums = 12, kQuantizedRows = 4, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/level_table.h"
// instead of its product of 8-bit codes
#include "ops/cpu/kernels/matmul_quantized_wide.h"

namespace minigpt4::cpu {

const Level& level_avx2() {
  static constexpr Level table = [] {
    Level level = MINIGPT4_LEVEL::table("avx2");
    level.quantized_scratch = MINIGPT4_LEVEL::wide_scratch;
    level.matmul_quantized = MINIGPT4_LEVEL::matmul_quantized_wide;
    return level;
  }();
  return table;
}

}  // namespace minigpt4::cpu
