// Where a forward pass shows its stages to a test: `verify` compares them with the reference's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "ops/ops.h"

namespace minigpt4 {

/// Called with a stage's name and its rows, which lie in the memory of `ops` and are valid during the call only.
/// An empty function: no trace.
using Trace = std::function<void(Ops& ops, const std::string& stage, const float* rows, int64_t T, int64_t C)>;

}  // namespace minigpt4
