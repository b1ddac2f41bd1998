// The level that every processor runs, without vector instructions of our own.
#define MINIGPT4_LEVEL scalar
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_scalar.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 4, kSums = 4, kQuantizedRows = 4, kGroupsAtOnce = 1;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/level_table.h"

namespace minigpt4::cpu {

const Level& level_scalar() {
  static constexpr Level table = MINIGPT4_LEVEL::table("scalar");
  return table;
}

}  // namespace minigpt4::cpu
