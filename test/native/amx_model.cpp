// Adds the models of levels "amx" and "avx-vnni" to the levels that tests run on.
#include <stdexcept>
#include <string>

#include "ops/cpu/levels.h"

void tile_unit_fault(const char* what);
void tile_unit_fault(const char* what) { throw std::logic_error(std::string("the tile unit faults: ") + what); }

namespace minigpt4::cpu {

const Level& level_amx_model();
#ifdef MINIGPT4_LEVEL_AVX512
const Level& level_amx_model_avx512();
const Level& level_avx_vnni_model();
#endif

namespace {

[[maybe_unused]] bool add_models() {
  add_level(level_amx_model());
#ifdef MINIGPT4_LEVEL_AVX512
  const bool avx512 = [] {
    for (const Level* level : available_levels()) {
      if (level->name == std::string("avx512")) return true;
    }
    return false;
  }();
  if (avx512) {
    add_level(level_avx_vnni_model());
    add_level(level_amx_model_avx512());
  }
#endif
  return true;
}
// a processor of another architecture has no such level, and an emulated one would take minutes for its model
#if defined(__x86_64__)
[[maybe_unused]] const bool added = add_models();
#endif

}  // namespace

}  // namespace minigpt4::cpu
