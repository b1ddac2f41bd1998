// The kernels of level "amx" over the model of its tile unit, with the vectors that the level has: everything of it but the
// tile instructions. Compiled with the flags of level "avx512", runs where that one does.
#define MINIGPT4_LEVEL amx_model_avx512
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_avx512.h"
// over its vectors
#include "ops/cpu/kernels/dot_words.h"
// the unit and its sizes
#include "amx_model.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 12, kSums = 24, kQuantizedRows = 16, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/tile_level.h"

namespace minigpt4::cpu {

const Level& level_amx_model_avx512() {
  static constexpr Level table = MINIGPT4_LEVEL::tile_table("amx-model-avx512");
  return table;
}

}  // namespace minigpt4::cpu
