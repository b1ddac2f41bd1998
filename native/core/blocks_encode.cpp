// Floats to F16, BF16 and the block types of 32 values.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/block_layout.h"
#include "core/blocks.h"
#include "core/blocks_encode_k.h"
#include "core/error.h"
#include "core/quant_search.h"

namespace minigpt4 {

namespace {

constexpr int kBlock = 32;

/// The levels of one block and what they cost.
struct Levels {
  uint8_t q[kBlock];
  float error;
};

/// Nearest levels in [0, high] for q * scale + low.
Levels nearest_levels(const float* x, float scale, float low, int high) noexcept {
  Levels levels;
  const float inverse = inverse_of(scale);
  float error = 0;
  for (int i = 0; i < kBlock; ++i) {
    const float q = level_of(x[i] - low, inverse, 0, float(high));
    const float off = x[i] - (q * scale + low);
    error += off * off;
    levels.q[i] = uint8_t(q);
  }
  levels.error = error;
  return levels;
}

/// Lower four bits of all 32 levels: element j in the low nibble, j + 16 in the high one.
void store_nibbles(uint8_t* bytes, const uint8_t* q) noexcept {
  for (int j = 0; j < 16; ++j) bytes[j] = uint8_t((q[j] & 15) | (q[j + 16] & 15) << 4);
}

/// Bit 4 of all 32 levels, element j in bit j.
void store_fifth_bits(uint8_t* bytes, const uint8_t* q) noexcept {
  uint32_t bits = 0;
  for (int j = 0; j < kBlock; ++j) bits |= uint32_t(q[j] >> 4) << j;
  store_u32(bytes, bits);
}

/// Q4_0 and Q5_0: d (q - half), half = 8 or 16. The searched scale against the one that spans the range: the search
/// does not know that the scale is rounded to a half, so in rare blocks it loses.
void encode_signed(const float* x, uint8_t* block, int half) noexcept {
  float extreme = 0;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  const uint16_t searched = scale_to_half(fit_signed(x, kBlock, half)), spanned = scale_to_half(extreme / float(-half));
  const float d = half_to_float(searched), d_spanned = half_to_float(spanned);
  const Levels of_search = nearest_levels(x, d, -float(half) * d, 2 * half - 1);
  const Levels of_span = nearest_levels(x, d_spanned, -float(half) * d_spanned, 2 * half - 1);
  const bool search_wins = of_search.error <= of_span.error;
  const uint8_t* q = search_wins ? of_search.q : of_span.q;
  store_u16(block, search_wins ? searched : spanned);
  if (half == 16) store_fifth_bits(block + 2, q);
  store_nibbles(block + (half == 16 ? 6 : 2), q);
}

/// Q4_1 and Q5_1: d q + m, q up to high = 15 or 31.
void encode_affine(const float* x, uint8_t* block, int high) noexcept {
  const auto [least, most] = std::minmax_element(x, x + kBlock);
  const Affine fit = fit_affine(x, kBlock, high + 1, false);
  const uint16_t searched = scale_to_half(fit.scale), spanned = scale_to_half((*most - *least) / float(high));
  const uint16_t low_searched = scale_to_half(fit.low), low_spanned = scale_to_half(*least);
  const Levels of_search = nearest_levels(x, half_to_float(searched), half_to_float(low_searched), high);
  const Levels of_span = nearest_levels(x, half_to_float(spanned), half_to_float(low_spanned), high);
  const bool search_wins = of_search.error <= of_span.error;
  const uint8_t* q = search_wins ? of_search.q : of_span.q;
  store_u16(block, search_wins ? searched : spanned);
  store_u16(block + 2, search_wins ? low_searched : low_spanned);
  if (high == 31) store_fifth_bits(block + 4, q);
  store_nibbles(block + (high == 31 ? 8 : 4), q);
}

void encode_q4_0(const float* x, uint8_t* block) { encode_signed(x, block, 8); }
void encode_q5_0(const float* x, uint8_t* block) { encode_signed(x, block, 16); }
void encode_q4_1(const float* x, uint8_t* block) { encode_affine(x, block, 15); }
void encode_q5_1(const float* x, uint8_t* block) { encode_affine(x, block, 31); }

void encode_q8_0(const float* x, uint8_t* block) {
  float most = 0;
  for (int i = 0; i < kBlock; ++i) most = std::max(most, std::fabs(x[i]));
  const uint16_t stored = scale_to_half(most / 127);
  store_u16(block, stored);
  const float inverse = inverse_of(half_to_float(stored));
  for (int i = 0; i < kBlock; ++i) block[2 + i] = uint8_t(int8_t(level_of(x[i], inverse, -127, 127)));
}

/// Blocks have no place for infinities and NaN, and one of them would spoil its neighbours.
void check_finite(Type type, const float* src, uint64_t values) {
  bool finite = true;
  for (uint64_t i = 0; i < values; ++i) finite &= std::fabs(src[i]) <= 3.402823466e38f;
  if (finite) return;
  const float* bad = std::find_if_not(src, src + values, [](float value) { return std::isfinite(value); });
  fail(code::argument, "value ", bad - src, " of a row is ", *bad, ", which ", name(type),
       " cannot hold; finite numbers are "
       "expected");
}

void encode_blocks(Type type, void (*encode)(const float*, uint8_t*), const float* src, uint8_t* dst, uint64_t values) {
  const TypeInfo& of = info(type);
  row_bytes(type, values);  // refuses a part of a block
  check_finite(type, src, values);
  for (uint64_t i = 0; i < values; i += of.block_values, dst += of.block_bytes) encode(src + i, dst);
}

}  // namespace

bool can_encode(Type type) noexcept { return type != Type::Q2_K && type != Type::Q3_K; }

void encode_row(Type type, const float* src, void* dst, uint64_t values) {
  uint8_t* bytes = static_cast<uint8_t*>(dst);
  switch (type) {
    case Type::F32:
      if (values != 0) std::memcpy(dst, src, values * sizeof(float));
      return;
    case Type::F16:
      for (uint64_t i = 0; i < values; ++i) store_u16(bytes + 2 * i, float_to_half(src[i]));
      return;
    case Type::BF16:
      for (uint64_t i = 0; i < values; ++i) store_u16(bytes + 2 * i, float_to_bf16(src[i]));
      return;
    case Type::Q4_0:
      return encode_blocks(type, encode_q4_0, src, bytes, values);
    case Type::Q4_1:
      return encode_blocks(type, encode_q4_1, src, bytes, values);
    case Type::Q5_0:
      return encode_blocks(type, encode_q5_0, src, bytes, values);
    case Type::Q5_1:
      return encode_blocks(type, encode_q5_1, src, bytes, values);
    case Type::Q8_0:
      return encode_blocks(type, encode_q8_0, src, bytes, values);
    case Type::Q4_K:
      return encode_blocks(type, encode_q4_k, src, bytes, values);
    case Type::Q5_K:
      return encode_blocks(type, encode_q5_k, src, bytes, values);
    case Type::Q6_K:
      return encode_blocks(type, encode_q6_k, src, bytes, values);
    case Type::Q2_K:
    case Type::Q3_K:
      break;
  }
  fail(code::unsupported, "this version cannot write ", name(type),
       "; it writes F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K "
       "Q5_K Q6_K");
}

}  // namespace minigpt4
