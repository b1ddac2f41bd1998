// What AMX's model throws; and the level over it that has AVX-512's vectors, added to the others where those run.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "ops/cpu/levels.h"

[[noreturn]] void tile_unit_fault(const char* what);
void tile_unit_fault(const char* what) { throw std::logic_error(std::string("the tile unit faults: ") + what); }

#ifdef MINIGPT4_LEVEL_AVX512
namespace minigpt4::cpu {

const Level& level_amx_model_avx512();

namespace {

[[maybe_unused]] const bool added = [] {
  const std::vector<const Level*> levels = available_levels();
  const auto avx512 = [](const Level* level) { return level->name == std::string("avx512"); };
  if (std::any_of(levels.begin(), levels.end(), avx512)) add_level(level_amx_model_avx512());
  return true;
}();

}  // namespace

}  // namespace minigpt4::cpu
#endif
