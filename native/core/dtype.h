// Number types of tensors as GGUF numbers them, and the conversions of the 16-bit floats.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace minigpt4 {

/// Types this project reads; the values are GGUF's (facts of the format, ggml's enum).
enum class Type : uint32_t {
  F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8,
  Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30,
};

struct TypeInfo {
  Type type;
  const char* name;      // "Q4_K"; the command line writes it in lower case
  uint32_t block_values; // values a block holds: 1, 32 or 256
  uint32_t block_bytes;
};

/// Null when the number names a type this project does not read.
const TypeInfo* find_type(uint32_t gguf_number) noexcept;
/// By name, upper or lower case ("q4_k", "Q4_K").
std::optional<Type> type_by_name(std::string_view name) noexcept;
const TypeInfo& info(Type type) noexcept;
inline const char* name(Type type) noexcept { return info(type).name; }
inline bool is_quantized(Type type) noexcept { return info(type).block_values > 1; }
/// Bytes of a row of `values`; values must be a multiple of the block (else Error ERR_SHAPE).
size_t row_bytes(Type type, uint64_t values);

/// IEEE half to float, exact. Subnormals, infinities and NaN included.
float half_to_float(uint16_t half) noexcept;
/// Round to nearest even; overflow gives infinity; NaN stays NaN.
uint16_t float_to_half(float value) noexcept;
inline float bf16_to_float(uint16_t bits) noexcept { return std::bit_cast<float>(uint32_t(bits) << 16); }
/// Round to nearest even; NaN stays a (quiet) NaN.
uint16_t float_to_bf16(float value) noexcept;

}  // namespace minigpt4
