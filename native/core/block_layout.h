// The pieces of GGUF's block layouts that reading and writing share. Blocks are not aligned: everything goes by bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace minigpt4 {

static_assert(std::endian::native == std::endian::little, "GGUF data is used as it lies in the file: little-endian");

inline uint16_t load_u16(const uint8_t* bytes) noexcept {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}
inline uint32_t load_u32(const uint8_t* bytes) noexcept {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}
inline float load_half(const uint8_t* bytes) noexcept { return half_to_float(load_u16(bytes)); }
inline void store_u16(uint8_t* bytes, uint16_t value) noexcept { std::memcpy(bytes, &value, sizeof value); }
inline void store_u32(uint8_t* bytes, uint32_t value) noexcept { std::memcpy(bytes, &value, sizeof value); }

/// A scale or minimum as a block stores it: kept finite, since an infinite one would make all values of the block NaN.
inline uint16_t scale_to_half(float value) noexcept {
  constexpr float kMost = 65504;
  return float_to_half(value > kMost ? kMost : value < -kMost ? -kMost : value);
}

struct ScaleMin {
  uint8_t scale, min;  // 6 bits each
};

/// Scale and minimum of sub-block j (0 to 7) from the 12 bytes of a Q4_K or Q5_K block: the first four lie whole in
/// the low six bits, the last four have their upper two bits on top of the first four's.
inline ScaleMin unpack_scale_min(const uint8_t* packed, int j) noexcept {
  if (j < 4) return {uint8_t(packed[j] & 63), uint8_t(packed[j + 4] & 63)};
  return {uint8_t((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4),
          uint8_t((packed[j + 4] >> 4) | (packed[j] >> 6) << 4)};
}
/// The other way round: of[8] into the 12 bytes.
inline void pack_scale_min(const ScaleMin* of, uint8_t* packed) noexcept {
  for (int j = 0; j < 4; ++j) {
    packed[j] = uint8_t(of[j].scale | (of[j + 4].scale >> 4) << 6);
    packed[j + 4] = uint8_t(of[j].min | (of[j + 4].min >> 4) << 6);
    packed[j + 8] = uint8_t((of[j + 4].scale & 15) | (of[j + 4].min & 15) << 4);
  }
}

}  // namespace minigpt4
