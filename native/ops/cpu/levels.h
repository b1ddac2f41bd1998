// Which instruction set levels this build and this processor have.
#pragma once

#include <string>
#include <vector>

#include "ops/cpu/levels/level.h"

namespace minigpt4::cpu {

/// Slowest first; never empty.
std::vector<const Level*> available_levels();
/// The level of that name; "": what MINIGPT4_CPU_LEVEL names, else the fastest. Error ERR_NO_BACKEND lists what there
/// is.
const Level& choose_level(const std::string& name);
/// For tests: one more level, listed behind the scalar one. Before anything else asks for levels.
void add_level(const Level& level);

}  // namespace minigpt4::cpu
