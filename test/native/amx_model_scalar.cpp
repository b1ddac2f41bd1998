// The kernels of level "amx" over the model of its tile unit and plain C++ vectors: runs everywhere.
#define MINIGPT4_LEVEL amx_model
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_scalar.h"
// the unit and its sizes
#include "amx_model.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 4, kSums = 4, kQuantizedRows = 16, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/tile_level.h"

namespace minigpt4::cpu {

const Level& level_amx_model() {
  static constexpr Level table = MINIGPT4_LEVEL::tile_table("amx-model");
  return table;
}

}  // namespace minigpt4::cpu

bool amx_model_in_use();
bool amx_model_in_use() { return minigpt4::cpu::MINIGPT4_LEVEL::unit.configured; }
