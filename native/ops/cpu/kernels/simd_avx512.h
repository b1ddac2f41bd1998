// The vector vocabulary of the kernels in AVX-512 (F, BW, VL, DQ, VNNI): 16 lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kLanes = 16;

using F = __m512;       // float lanes
using I = __m512i;      // int32 lanes
using Codes = __m512i;  // four code bytes a lane

inline __mmask16 first(int n) { return __mmask16((1u << n) - 1); }

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
/// The first n lanes, 0 <= n <= kLanes; the others are zero.
inline F load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void store_n(float* p, F x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
inline F load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline F load_half_n(const uint16_t* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p)); }
inline F load_bf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline void store_half(uint16_t* p, F x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_u8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
inline F load_i8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
/// (byte >> shift) & 15.
template <int shift>
inline F load_nibble(const uint8_t* p) {
  const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(x, shift), _mm512_set1_epi32(15)));
}
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
/// a > b ? a : b, so b where either is not a number; likewise the minimum.
inline F max_of(F a, F b) { return _mm512_max_ps(a, b); }
inline F min_of(F a, F b) { return _mm512_min_ps(a, b); }
inline F sqrt_of(F a) { return _mm512_sqrt_ps(a); }
inline F abs_of(F a) { return _mm512_abs_ps(a); }
/// a < b ? yes : no.
inline F if_less(F a, F b, F yes, F no) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes); }
/// x · 2^n for an n that was added to 1.5 · 2^23, which leaves it in the low bits of `shifted`.
inline F scale_by_power(F x, F shifted) {
  return _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}
inline F to_float(I x) { return _mm512_cvtepi32_ps(x); }
/// Rounds to nearest even, to bytes; |x| <= 127.
inline void store_i8(int8_t* p, F x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))); }

/// The sum of 16 bytes.
inline int sum_bytes(const int8_t* p) {
  const __m128i x = _mm_loadu_si128((const __m128i*)p);
  const __m128i words = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), x);
  const __m128i halves = _mm_add_epi32(words, _mm_unpackhi_epi64(words, words));
  return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 1);
}

/// Sixteen lanes to one in the order that every level keeps: lanes 8 apart, then 4, 2, 1.
inline float sum16(const F (&x)[1]) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x[0]), _mm512_extractf32x8_ps(x[0], 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float max_lane(F x) { return _mm512_reduce_max_ps(x); }

inline Codes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
/// Loaded once: the compiler would rather have every operation on the codes read memory.
inline Codes in_register(Codes codes) {
  asm("" : "+v"(codes));
  return codes;
}
inline Codes either(Codes a, Codes b) { return _mm512_or_si512(a, b); }
/// Bytes shifted right by `right` (left if negative), then masked.
template <int right, int mask>
inline Codes bits_of(Codes x) {
  if constexpr (right > 0) x = _mm512_srli_epi16(x, right);
  if constexpr (right < 0) x = _mm512_slli_epi16(x, -right);
  return _mm512_and_si512(x, _mm512_set1_epi8(mask));
}

/// Code bytes as they are, in float lanes that only move them.
inline F as_lanes(Codes x) { return _mm512_castsi512_ps(x); }

/// Lane j of x[i] becomes lane i of x[j].
inline void transpose(F (&x)[16]) {
  F pairs[16], fours[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
  // fours[4 q + c] has in its quarter l the lanes 4 l + c of x[4 q] … x[4 q + 3]
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m512d a = _mm512_castps_pd(pairs[i + h]), b = _mm512_castps_pd(pairs[i + h + 2]);
      fours[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      fours[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const F even0 = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0x88);
    const F odd0 = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0xdd);
    const F even1 = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0x88);
    const F odd1 = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0xdd);
    x[c] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    x[4 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    x[8 + c] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    x[12 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
}

/// Four bytes, and an integer, in every lane.
inline I set1_word(const int8_t* q) {
  int32_t x;
  __builtin_memcpy(&x, q, 4);
  return _mm512_set1_epi32(x);
}
inline I set1_int(int32_t x) { return _mm512_set1_epi32(x); }
inline I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
/// sum + codes · the word of each lane.
inline I add_dot(I sum, Codes codes, I word) { return _mm512_dpbusd_epi32(sum, codes, word); }

// ---- for levels with a matrix unit

/// Bytes less `b`, modulo 256.
inline Codes minus(Codes a, int b) { return _mm512_sub_epi8(a, _mm512_set1_epi8(char(b))); }
inline void store_codes(int8_t* p, Codes x) { _mm512_storeu_si512(p, x); }
inline F load_i32(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
/// To the 16 upper bits, nearest, ties away from zero, for a finite x of at most the largest bf16.
inline F round_to_bf16(F x) {
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
  return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(int(0xffff0000))));
}
/// The lanes' upper halves.
inline void store_bf16(uint16_t* p, F x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(x), 16)));
}
/// Likewise of two vectors, lane by lane in turn.
inline void store_bf16_pairs(uint16_t* p, F even, F odd) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
  _mm512_storeu_si512(p, _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_castps_si512(odd)));
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
