// A super-block's sub-blocks are fitted one by one; then their scales and minima are rounded to a few bits of common
// ones, and the levels are chosen anew for what the rounded ones stand for.
#include "core/blocks_encode_k.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/block_layout.h"
#include "core/quant_search.h"

namespace minigpt4 {

namespace {

constexpr int kValues = 256;
constexpr float kMostPart = 63;  // of a 6-bit scale or minimum

/// Squared error of scale * q - min with the nearest q in [0, high], and the sum of those q.
struct Cost {
  float error, level_sum;
};
Cost cost_of(const float* x, float scale, float min, float high) noexcept {
  const float inverse = inverse_of(scale);
  float errors[8] = {}, levels[8] = {};
  for (int i = 0; i < 32; i += 8) {
    for (int l = 0; l < 8; ++l) {
      const float q = level_of(x[i + l] + min, inverse, 0, high), off = x[i + l] - (q * scale - min);
      errors[l] += off * off;
      levels[l] += q;
    }
  }
  Cost cost{0, 0};
  for (int l = 0; l < 8; ++l) {
    cost.error += errors[l];
    cost.level_sum += levels[l];
  }
  return cost;
}

/// Rounds a sub-block's scale and minimum to multiples of d and dmin: the scale's neighbours are tried too, each with
/// the minimum that suits the levels it leads to.
ScaleMin round_parts(const float* x, const Affine& fit, float d, float dmin, float high) noexcept {
  const float scale = level_of(fit.scale, inverse_of(d), 0, kMostPart);
  const float min = level_of(-fit.low, inverse_of(dmin), 0, kMostPart);
  float total = 0;
  for (int i = 0; i < 32; ++i) total += x[i];
  ScaleMin best{uint8_t(scale), uint8_t(min)};
  float best_error = cost_of(x, d * scale, dmin * min, high).error;
  for (float s = std::max(0.f, scale - 1); s <= std::min(kMostPart, scale + 1); ++s) {
    const float level_sum = cost_of(x, d * s, dmin * min, high).level_sum;
    const float m = level_of((d * s * level_sum - total) / 32, inverse_of(dmin), 0, kMostPart);
    const float error = cost_of(x, d * s, dmin * m, high).error;
    if (error < best_error) {
      best_error = error;
      best = {uint8_t(s), uint8_t(m)};
    }
  }
  return best;
}

/// Q4_K and Q5_K up to the packing: d, dmin and the 12 bytes of scales at the block's start, the levels into q[256].
void encode_affine_parts(const float* x, uint8_t* block, int levels, uint8_t* q) noexcept {
  Affine fits[8];
  float most_scale = 0, most_min = 0;
  for (int j = 0; j < 8; ++j) {
    fits[j] = fit_affine(x + 32 * j, 32, levels, true);
    most_scale = std::max(most_scale, fits[j].scale);
    most_min = std::max(most_min, -fits[j].low);
  }
  const uint16_t d_half = scale_to_half(most_scale / kMostPart), dmin_half = scale_to_half(most_min / kMostPart);
  const float d = half_to_float(d_half), dmin = half_to_float(dmin_half), high = float(levels - 1);
  ScaleMin parts[8];
  for (int j = 0; j < 8; ++j) {
    parts[j] = round_parts(x + 32 * j, fits[j], d, dmin, high);
    const float scale = d * float(parts[j].scale), min = dmin * float(parts[j].min), inverse = inverse_of(scale);
    for (int i = 32 * j; i < 32 * j + 32; ++i) q[i] = uint8_t(level_of(x[i] + min, inverse, 0, high));
  }
  store_u16(block, d_half);
  store_u16(block + 2, dmin_half);
  pack_scale_min(parts, block + 4);
}

/// Two sub-blocks share 32 bytes: the even one in the low nibbles.
void store_nibble_pairs(uint8_t* bytes, const uint8_t* q) noexcept {
  for (int pair = 0; pair < 4; ++pair) {
    for (int l = 0; l < 32; ++l)
      bytes[32 * pair + l] = uint8_t((q[64 * pair + l] & 15) | (q[64 * pair + 32 + l] & 15) << 4);
  }
}

}  // namespace

void encode_q4_k(const float* x, uint8_t* block) {
  uint8_t q[kValues];
  encode_affine_parts(x, block, 16, q);
  store_nibble_pairs(block + 16, q);
}

void encode_q5_k(const float* x, uint8_t* block) {
  uint8_t q[kValues];
  encode_affine_parts(x, block, 32, q);
  uint8_t* high = block + 16;
  std::memset(high, 0, 32);
  for (int i = 0; i < kValues; ++i) high[i % 32] |= uint8_t((q[i] >> 4) << (i / 32));
  store_nibble_pairs(block + 48, q);
}

void encode_q6_k(const float* x, uint8_t* block) {
  float scales[16], extreme = 0;
  for (int j = 0; j < 16; ++j) {
    scales[j] = fit_signed(x + 16 * j, 16, 32);
    if (std::fabs(scales[j]) > std::fabs(extreme)) extreme = scales[j];
  }
  // Signed, so that the largest scale becomes -128, which an int8 holds and 128 it does not.
  const uint16_t d_half = scale_to_half(extreme / -128);
  const float d = half_to_float(d_half), inverse_d = inverse_of(d);
  uint8_t q[kValues];
  for (int j = 0; j < 16; ++j) {
    const float part = level_of(scales[j], inverse_d, -128, 127);
    const float inverse = inverse_of(d * part);
    block[192 + j] = uint8_t(int8_t(part));
    for (int i = 16 * j; i < 16 * j + 16; ++i) q[i] = uint8_t(level_of(x[i], inverse, -32, 31) + 32);
  }
  store_u16(block + 208, d_half);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* of = q + 128 * half;
    for (int l = 0; l < 32; ++l) {
      block[64 * half + l] = uint8_t((of[l] & 15) | (of[l + 64] & 15) << 4);
      block[64 * half + 32 + l] = uint8_t((of[l + 32] & 15) | (of[l + 96] & 15) << 4);
      block[128 + 32 * half + l] =
          uint8_t(of[l] >> 4 | (of[l + 32] >> 4) << 2 | (of[l + 64] >> 4) << 4 | (of[l + 96] >> 4) << 6);
    }
  }
}

}  // namespace minigpt4
