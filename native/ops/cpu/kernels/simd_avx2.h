// The vector vocabulary of the kernels in AVX2 with FMA and F16C: 8 lanes. The dot product of bytes is
// a level's own: dot_avx2.h, add_dot_avx_vnni.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kLanes = 8;

using F = __m256;       // float lanes
using I = __m256i;      // int32 lanes
using Codes = __m256i;  // four code bytes a lane

inline __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline F zero() { return _mm256_setzero_ps(); }
inline F set1(float x) { return _mm256_set1_ps(x); }
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
/// The first n lanes, 0 <= n <= kLanes; the others are zero.
inline F load_n(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
inline void store_n(float* p, F x, int n) { _mm256_maskstore_ps(p, first(n), x); }
inline F load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline F load_half_n(const uint16_t* p, int n) {
  alignas(16) uint16_t part[8] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load_half(part);
}
inline F load_bf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
inline void store_half(uint16_t* p, F x) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_u8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
inline F load_i8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
/// (byte >> shift) & 15.
template <int shift>
inline F load_nibble(const uint8_t* p) {
  const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(x, shift), _mm256_set1_epi32(15)));
}
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
/// a > b ? a : b, so b where either is not a number; likewise the minimum.
inline F max_of(F a, F b) { return _mm256_max_ps(a, b); }
inline F min_of(F a, F b) { return _mm256_min_ps(a, b); }
inline F sqrt_of(F a) { return _mm256_sqrt_ps(a); }
inline F abs_of(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/// a < b ? yes : no.
inline F if_less(F a, F b, F yes, F no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
/// x · 2^n for an n that was added to 1.5 · 2^23, which leaves it in the low bits of `shifted`.
inline F scale_by_power(F x, F shifted) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
}
inline F to_float(I x) { return _mm256_cvtepi32_ps(x); }
/// Rounds to nearest even, to bytes; |x| <= 127.
inline void store_i8(int8_t* p, F x) {
  const __m256i wide = _mm256_cvtps_epi32(x);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(words, words));
}

/// The sum of 16 bytes.
inline int sum_bytes(const int8_t* p) {
  const __m128i above = _mm_xor_si128(_mm_loadu_si128((const __m128i*)p), _mm_set1_epi8(-128));  // each less -128
  const __m128i halves = _mm_sad_epu8(above, _mm_setzero_si128());
  return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - 16 * 128;
}

/// Sixteen lanes to one in the order that every level keeps: lanes 8 apart, then 4, 2, 1.
inline float sum16(const F (&x)[2]) {
  const __m256 a = _mm256_add_ps(x[0], x[1]);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float max_lane(F x) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

inline Codes load_codes(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Codes either(Codes a, Codes b) { return _mm256_or_si256(a, b); }
/// Bytes shifted right by `right` (left if negative), then masked.
template <int right, int mask>
inline Codes bits_of(Codes x) {
  if constexpr (right > 0) x = _mm256_srli_epi16(x, right);
  if constexpr (right < 0) x = _mm256_slli_epi16(x, -right);
  return _mm256_and_si256(x, _mm256_set1_epi8(mask));
}

/// Code bytes as they are, in float lanes that only move them.
inline F as_lanes(Codes x) { return _mm256_castsi256_ps(x); }

/// Lane j of x[i] becomes lane i of x[j].
inline void transpose(F (&x)[8]) {
  F pairs[8], fours[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  // fours[4 q + c] has in its half l the lanes 4 l + c of x[4 q] … x[4 q + 3]
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256d a = _mm256_castps_pd(pairs[i + h]), b = _mm256_castps_pd(pairs[i + h + 2]);
      fours[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
      fours[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    x[c] = _mm256_permute2f128_ps(fours[c], fours[4 + c], 0x20);
    x[4 + c] = _mm256_permute2f128_ps(fours[c], fours[4 + c], 0x31);
  }
}

/// Four bytes, and an integer, in every lane.
inline I set1_word(const int8_t* q) {
  int32_t x;
  __builtin_memcpy(&x, q, 4);
  return _mm256_set1_epi32(x);
}
inline I set1_int(int32_t x) { return _mm256_set1_epi32(x); }
inline I add_int(I a, I b) { return _mm256_add_epi32(a, b); }

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
