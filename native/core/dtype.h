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
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  BF16 = 30,
};

struct TypeInfo {
  Type type;
  const char* name;       // "Q4_K"; the command line writes it in lower case
  uint32_t block_values;  // values a block holds: 1, 32 or 256
  uint32_t block_bytes;
};

/// Null when the number names a type this project does not read.
const TypeInfo* find_type(uint32_t gguf_number) noexcept;
/// The name of any type number GGUF knows, also of those this project does not read; null for one GGUF does not know.
const char* gguf_type_name(uint32_t gguf_number) noexcept;
/// By name, upper or lower case ("q4_k", "Q4_K").
std::optional<Type> type_by_name(std::string_view name) noexcept;
const TypeInfo& info(Type type) noexcept;
inline const char* name(Type type) noexcept { return info(type).name; }
inline bool is_quantized(Type type) noexcept { return info(type).block_values > 1; }
/// Bytes of a row of `values`; values must be a multiple of the block (else Error ERR_SHAPE).
size_t row_bytes(Type type, uint64_t values);

/// IEEE half to float, exact. Subnormals, infinities and NaN included.
inline float half_to_float(uint16_t half) noexcept {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
  uint32_t bits;
  if (magnitude >= 0x7c00) {
    bits = 0x7f800000 | (magnitude & 0x3ff) << 13;
  } else if (magnitude >= 0x0400) {
    bits = (magnitude << 13) + (112u << 23);  // the exponents' biases differ by 127 - 15
  } else {
    bits = std::bit_cast<uint32_t>(float(magnitude) * 0x1p-24f);
  }
  return std::bit_cast<float>(sign | bits);
}
/// Round to nearest even; overflow gives infinity; NaN stays NaN.
inline uint16_t float_to_half(float value) noexcept {
  const uint32_t whole = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (whole >> 16) & 0x8000, bits = whole & 0x7fffffff;
  uint32_t half;
  if (bits > 0x7f800000) {
    half = 0x7e00 | ((bits >> 13) & 0x3ff);
  } else if (bits >= 0x47800000) {  // 65536 and more; what lies between 65520 and it rounds up to infinity below
    half = 0x7c00;
  } else if (bits >= 0x38800000) {  // 2^-14: the smallest normal half
    half = (bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
  } else {
    // floats from 0.5 to 1 are 2^-24 apart, as subnormal halves are: the addition does the rounding
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  }
  return uint16_t(sign | half);
}
inline float bf16_to_float(uint16_t bits) noexcept { return std::bit_cast<float>(uint32_t(bits) << 16); }
/// Round to nearest even; NaN stays a (quiet) NaN.
inline uint16_t float_to_bf16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace minigpt4
