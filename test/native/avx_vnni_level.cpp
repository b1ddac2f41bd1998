// Adds the model of level "avx-vnni" to the levels that tests run on, where its instructions are.
#include <algorithm>
#include <string>

#include "ops/cpu/levels.h"

namespace minigpt4::cpu {

const Level& level_avx_vnni_model();

namespace {

[[maybe_unused]] const bool added = [] {
  const std::vector<const Level*> levels = available_levels();
  const auto avx512 = [](const Level* level) { return level->name == std::string("avx512"); };
  if (std::any_of(levels.begin(), levels.end(), avx512)) add_level(level_avx_vnni_model());
  return true;
}();

}  // namespace

}  // namespace minigpt4::cpu
