// AVX2 with AVX-VNNI, whose product of bytes is one instruction: Intel's client processors since 2021 (Alder Lake), which have no
// AVX-512. Compiled with flags of its own: include nothing here whose inline code another file could be given.
#define MINIGPT4_LEVEL avx_vnni
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_avx2.h"
// its product of bytes
#include "ops/cpu/kernels/add_dot_avx_vnni.h"
// made of that
#include "ops/cpu/kernels/dot_words.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 6, kSums = 12, kQuantizedRows = 4, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/level_table.h"

namespace minigpt4::cpu {

const Level& level_avx_vnni() {
  static constexpr Level table = MINIGPT4_LEVEL::table("avx-vnni");
  return table;
}

}  // namespace minigpt4::cpu
