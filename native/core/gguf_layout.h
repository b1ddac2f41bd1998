// Files whose matrices lie in groups of rows (core/row_groups.h): tensors of bytes, with keys that say what they stand for.
// docs/format.md describes them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/gguf.h"

namespace minigpt4 {

/// GGUF's number of the type that such tensors have: a program that does not know the layout finds 8-bit integers of a shape
/// that no model has.
inline constexpr uint32_t kBytesType = 24;
inline constexpr const char* kBytesTypeName = "I8";
/// Where a tensor in groups begins: a multiple of this, so that vectors of 64 bytes do not straddle cache lines.
inline constexpr uint64_t kGroupAlignment = 64;

/// The keys for the tensors that are planned in groups; none where none is.
std::vector<std::pair<std::string, GgufValue>> layout_keys(const std::vector<GgufTensorPlan>& tensors);

/// Gives the tensors of bytes among a file's the types and shapes that its keys tell of. Errors: ERR_UNSUPPORTED (8-bit integers
/// that no key speaks of, a layout or a version of it that is not known), ERR_FILE_FORMAT (keys that contradict each other or
/// the tensors).
void apply_layout(const GgufFile& file, std::vector<GgufTensor>& tensors);

}  // namespace minigpt4
