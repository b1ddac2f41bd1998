// Encodes and decodes rows of every block type of GGUF that this project reads. Scalar and plain: the reference that
// the fast paths are tested against, and what the converter uses.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace minigpt4 {

/// dst[0..values) = the floats that the blocks at src (no alignment needed) stand for. Error ERR_SHAPE if values is no
/// multiple of the type's block.
void decode_row(Type type, const void* src, float* dst, uint64_t values);

/// True for F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K.
bool can_encode(Type type) noexcept;
/// Writes row_bytes(type, values) bytes at dst (no alignment needed). Errors: ERR_UNSUPPORTED if !can_encode(type);
/// ERR_SHAPE as above; ERR_ARGUMENT if a block type is to hold an infinity or a NaN.
void encode_row(Type type, const float* src, void* dst, uint64_t values);

}  // namespace minigpt4
