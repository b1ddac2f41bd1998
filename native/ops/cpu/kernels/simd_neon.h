// The vector vocabulary of the kernels in NEON with dot products, and with those of mixed signs (i8mm) where the level's
// flags have them: 4 lanes. Structs of several registers would give fewer and longer operations, but a tile would then
// hold the codes of all of them at once: 4 lanes leave more of the 32 registers to running sums.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kLanes = 4;

using F = float32x4_t;     // float lanes
using I = int32x4_t;       // int32 lanes
using Codes = uint8x16_t;  // four code bytes a lane

inline F zero() { return vdupq_n_f32(0); }
inline F set1(float x) { return vdupq_n_f32(x); }
inline F load(const float* p) { return vld1q_f32(p); }
inline void store(float* p, F x) { vst1q_f32(p, x); }
/// The first n lanes, 0 <= n <= kLanes; the others are zero.
inline F load_n(const float* p, int n) {
  float part[4] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}
inline void store_n(float* p, F x, int n) {
  float part[4];
  store(part, x);
  for (int i = 0; i < n; ++i) p[i] = part[i];
}
inline F load_half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline F load_half_n(const uint16_t* p, int n) {
  uint16_t part[4] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load_half(part);
}
inline F load_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
/// To nearest even, which is how a thread rounds that has not asked for anything else.
inline void store_half(uint16_t* p, F x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }

inline uint8x8_t four_bytes(const void* p) {
  uint32_t x;
  __builtin_memcpy(&x, p, 4);
  return vcreate_u8(x);
}
inline F load_u8(const uint8_t* p) { return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four_bytes(p))))); }
inline F load_i8(const uint8_t* p) {
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes(p))))));
}
/// (byte >> shift) & 15.
template <int shift>
inline F load_nibble(const uint8_t* p) {
  uint8x8_t x = four_bytes(p);
  if constexpr (shift > 0) x = vshr_n_u8(x, shift);
  x = vand_u8(x, vdup_n_u8(15));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(x))));
}
inline F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
inline F add(F a, F b) { return vaddq_f32(a, b); }
inline F sub(F a, F b) { return vsubq_f32(a, b); }
inline F mul(F a, F b) { return vmulq_f32(a, b); }
inline F div(F a, F b) { return vdivq_f32(a, b); }
/// a > b ? a : b, so b where either is not a number (the instruction for it would give NaN); likewise the minimum.
inline F max_of(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline F min_of(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline F sqrt_of(F a) { return vsqrtq_f32(a); }
inline F abs_of(F a) { return vabsq_f32(a); }
/// a < b ? yes : no.
inline F if_less(F a, F b, F yes, F no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
/// x · 2^n for an n that was added to 1.5 · 2^23, which leaves it in the low bits of `shifted`.
inline F scale_by_power(F x, F shifted) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23)));
}
inline F to_float(I x) { return vcvtq_f32_s32(x); }
/// Rounds to nearest even, to bytes; |x| <= 127.
inline void store_i8(int8_t* p, F x) {
  const int16x4_t words = vmovn_s32(vcvtnq_s32_f32(x));
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
  __builtin_memcpy(p, &four, 4);
}

/// The sum of 16 bytes.
inline int sum_bytes(const int8_t* p) { return vaddlvq_s8(vld1q_s8(p)); }

/// Sixteen lanes to one in the order that every level keeps: lanes 8 apart, then 4, 2, 1.
inline float sum16(const F (&x)[4]) {
  const F a = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
  return vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)));
}
inline float max_lane(F x) { return vmaxvq_f32(x); }

inline Codes load_codes(const uint8_t* p) { return vld1q_u8(p); }
inline Codes either(Codes a, Codes b) { return vorrq_u8(a, b); }
/// Bytes shifted right by `right` (left if negative), then masked.
template <int right, int mask>
inline Codes bits_of(Codes x) {
  constexpr int left_over = right >= 0 ? 255 >> right : 255 << -right & 255;
  if constexpr (right > 0) x = vshrq_n_u8(x, right);
  if constexpr (right < 0) x = vshlq_n_u8(x, -right);
  if constexpr ((left_over & ~mask) != 0) x = vandq_u8(x, vdupq_n_u8(mask));
  return x;
}

/// Code bytes as they are, in float lanes that only move them.
inline F as_lanes(Codes x) { return vreinterpretq_f32_u8(x); }

/// Lane j of x[i] becomes lane i of x[j].
inline void transpose(F (&x)[4]) {
  const auto wide = [](F v) { return vreinterpretq_f64_f32(v); };
  const F even01 = vtrn1q_f32(x[0], x[1]), odd01 = vtrn2q_f32(x[0], x[1]);
  const F even23 = vtrn1q_f32(x[2], x[3]), odd23 = vtrn2q_f32(x[2], x[3]);
  x[0] = vreinterpretq_f32_f64(vzip1q_f64(wide(even01), wide(even23)));
  x[1] = vreinterpretq_f32_f64(vzip1q_f64(wide(odd01), wide(odd23)));
  x[2] = vreinterpretq_f32_f64(vzip2q_f64(wide(even01), wide(even23)));
  x[3] = vreinterpretq_f32_f64(vzip2q_f64(wide(odd01), wide(odd23)));
}

/// sum + codes[j] · word j of q, and the same for the words behind it. By templates: the word is part of an instruction.
template <int words, int j = 0>
inline I add_words(I sum, const Codes* codes, const int8_t* q) {
  const int8x16_t x = vld1q_s8(q + j / 4 * 16);
#ifdef __ARM_FEATURE_MATMUL_INT8
  sum = vusdotq_laneq_s32(sum, codes[j], x, j % 4);
#else
  sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(codes[j]), x, j % 4);
#endif
  if constexpr (j + 1 < words) {
    return add_words<words, j + 1>(sum, codes, q);
  } else {
    return sum;
  }
}

/// offset + Σ codes · q over `words` words of four, in every lane. Offset makes up for the codes' being unsigned.
/// `split` (two chains, for processors that wait for one) makes no difference here: there are the other lanes' chains.
template <int bits, int words, bool split>
inline I dot(const Codes* codes, const int8_t* q, int32_t offset) {
#ifndef __ARM_FEATURE_MATMUL_INT8
  // Both sides are signed: codes below 128 are what they are, those of 8 bits minus 128 are bytes with another top bit,
  // and the offset is in that form already.
  if constexpr (bits == 8) {
    Codes c[words];
#pragma GCC unroll 8
    for (int j = 0; j < words; ++j) c[j] = veorq_u8(codes[j], vdupq_n_u8(128));
    return add_words<words>(vdupq_n_s32(0), c, q);
  }
#endif
  return add_words<words>(vdupq_n_s32(offset), codes, q);
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
