// CUDA's arithmetic functions that the C++ library lacks, with CUDA's names and results. Those that the device only
// approximates are exact to a unit in the last place or so here: tests allow for the difference.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "simt/vector_types.h"

#define SIMT_MIN_MAX(type)                                     \
  constexpr type min(type a, type b) { return b < a ? b : a; } \
  constexpr type max(type a, type b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
constexpr unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
constexpr unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
constexpr unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
constexpr unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
/// The one that is a number, where the other is not.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// ---- bits

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
/// One more than the number of the lowest bit that is set, 0 where none is.
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __ffsll(long long x) { return x ? std::countr_zero(static_cast<unsigned long long>(x)) + 1 : 0; }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= ((x >> i) & 1u) << (31 - i);
  return y;
}
/// Four bytes chosen out of eight, x the lower ones: three bits of each nibble of s name the byte, and the nibble's
/// fourth bit fills the byte with the chosen byte's sign instead (the device's prmt.b32).
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
  const uint64_t all = uint64_t(y) << 32 | x;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned nibble = s >> (4 * i);
    unsigned byte = unsigned(all >> (8 * (nibble & 7))) & 0xff;
    if (nibble & 8) byte = byte & 0x80 ? 0xff : 0;
    chosen |= byte << (8 * i);
  }
  return chosen;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

// ---- products

/// sum + the four products of bytes in the same place; overflow wraps.
inline int __dp4a(int a, int b, int sum) {
  uint32_t total = uint32_t(sum);
  for (int i = 0; i < 32; i += 8) total += uint32_t(int(int8_t(uint32_t(a) >> i)) * int(int8_t(uint32_t(b) >> i)));
  return int(total);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 32; i += 8) sum += ((a >> i) & 0xff) * ((b >> i) & 0xff);
  return sum;
}
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }

// ---- conversions: saturating, NaN to 0, as the device's cvt

namespace minigpt4::simt {
template <class Integer>
Integer saturated(float x) {
  if (!(x == x)) return 0;
  // the limits as floats: the upper one rounds up to a power of two, the first value that does not fit
  if (x >= float(std::numeric_limits<Integer>::max())) return std::numeric_limits<Integer>::max();
  if (x <= float(std::numeric_limits<Integer>::min())) return std::numeric_limits<Integer>::min();
  return Integer(x);
}
}  // namespace minigpt4::simt
inline int __float2int_rn(float x) { return ::minigpt4::simt::saturated<int>(nearbyintf(x)); }
inline int __float2int_rz(float x) { return ::minigpt4::simt::saturated<int>(truncf(x)); }
inline int __float2int_rd(float x) { return ::minigpt4::simt::saturated<int>(floorf(x)); }
inline int __float2int_ru(float x) { return ::minigpt4::simt::saturated<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return ::minigpt4::simt::saturated<unsigned>(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return ::minigpt4::simt::saturated<unsigned>(truncf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

// ---- functions the device approximates

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
