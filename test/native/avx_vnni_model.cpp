// The kernels of level "avx-vnni" with its instructions, the product of bytes among them, in AVX-512's encoding. Compiled with the flags of level "avx512", runs where
// that one does.
#define MINIGPT4_LEVEL avx_vnni_model
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

const Level& level_avx_vnni_model() {
  static constexpr Level table = MINIGPT4_LEVEL::table("avx-vnni-model");
  return table;
}

}  // namespace minigpt4::cpu
