// The vector vocabulary of the kernels in plain C++, for processors without a level of their own and as the statement
// of what the others must compute: 16 lanes in an array, every operation a loop.
#pragma once

#include <cstdint>

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kLanes = 16;

struct F {
  float v[16];
};
struct I {
  int32_t v[16];
};
struct Codes {
  uint8_t v[64];
};

template <class To, class From>
inline To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  __builtin_memcpy(&y, &x, sizeof y);
  return y;
}
template <class Body>
inline F each(Body body) {
  F y;
  for (int i = 0; i < 16; ++i) y.v[i] = body(i);
  return y;
}
inline float widen_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff;
  if (rest < 0x0400) return same_bits<float>(sign | same_bits<uint32_t>(float(rest) * 0x1p-24f));
  return same_bits<float>(sign | (rest >= 0x7c00 ? 0x7f800000u | (rest & 0x3ff) << 13 : (rest << 13) + (112u << 23)));
}

inline F set1(float x) {
  return each([&](int) { return x; });
}
inline F zero() { return set1(0); }
inline F load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline void store(float* p, const F& x) {
  for (int i = 0; i < 16; ++i) p[i] = x.v[i];
}
/// The first n lanes, 0 <= n <= kLanes; the others are zero.
inline F load_n(const float* p, int n) {
  return each([&](int i) { return i < n ? p[i] : 0; });
}
inline void store_n(float* p, const F& x, int n) {
  for (int i = 0; i < n; ++i) p[i] = x.v[i];
}
inline F load_half(const uint16_t* p) {
  return each([&](int i) { return widen_half(p[i]); });
}
inline F load_half_n(const uint16_t* p, int n) {
  return each([&](int i) { return i < n ? widen_half(p[i]) : 0; });
}
inline F load_bf16(const uint16_t* p) {
  return each([&](int i) { return same_bits<float>(uint32_t(p[i]) << 16); });
}
/// To nearest even, as the processors' instructions do.
inline void store_half(uint16_t* p, const F& x) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t whole = same_bits<uint32_t>(x.v[i]), sign = whole >> 16 & 0x8000, bits = whole & 0x7fffffff;
    uint32_t half;
    if (bits > 0x7f800000) {
      half = 0x7e00 | (bits >> 13 & 0x3ff);
    } else if (bits >= 0x47800000) {
      half = 0x7c00;
    } else if (bits >= 0x38800000) {
      half = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    } else {
      half = same_bits<uint32_t>(same_bits<float>(bits) + 0.5f) - same_bits<uint32_t>(0.5f);
    }
    p[i] = uint16_t(sign | half);
  }
}
inline F load_u8(const uint8_t* p) {
  return each([&](int i) { return float(p[i]); });
}
inline F load_i8(const uint8_t* p) {
  return each([&](int i) { return float(int8_t(p[i])); });
}
/// (byte >> shift) & 15.
template <int shift>
inline F load_nibble(const uint8_t* p) {
  return each([&](int i) { return float(p[i] >> shift & 15); });
}
inline F fma(const F& a, const F& b, const F& c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline F add(const F& a, const F& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F sub(const F& a, const F& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline F mul(const F& a, const F& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F div(const F& a, const F& b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
/// a > b ? a : b, so b where either is not a number; likewise the minimum.
inline F max_of(const F& a, const F& b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F min_of(const F& a, const F& b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F sqrt_of(const F& a) {
  return each([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
inline F abs_of(const F& a) {
  return each([&](int i) { return same_bits<float>(same_bits<uint32_t>(a.v[i]) & 0x7fffffff); });
}
/// a < b ? yes : no.
inline F if_less(const F& a, const F& b, const F& yes, const F& no) {
  return each([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
/// x · 2^n for an n that was added to 1.5 · 2^23, which leaves it in the low bits of `shifted`.
inline F scale_by_power(const F& x, const F& shifted) {
  return each(
      [&](int i) { return same_bits<float>(same_bits<uint32_t>(x.v[i]) + (same_bits<uint32_t>(shifted.v[i]) << 23)); });
}
inline F to_float(const I& x) {
  return each([&](int i) { return float(x.v[i]); });
}
/// Rounds to nearest even, to bytes; |x| <= 127. Adding 1.5 · 2^23 rounds and leaves the integer in the low bits.
inline void store_i8(int8_t* p, const F& x) {
  for (int i = 0; i < 16; ++i) p[i] = int8_t(same_bits<uint32_t>(x.v[i] + 12582912.0f) & 0xff);
}

/// The sum of 16 bytes.
inline int sum_bytes(const int8_t* p) {
  int sum = 0;
  for (int i = 0; i < 16; ++i) sum += p[i];
  return sum;
}

/// Sixteen lanes to one in the order that every level keeps: lanes 8 apart, then 4, 2, 1.
inline float sum16(const F (&x)[1]) {
  F s = x[0];
  for (int apart = 8; apart > 0; apart /= 2) {
    for (int i = 0; i < apart; ++i) s.v[i] = s.v[i] + s.v[i + apart];
  }
  return s.v[0];
}
inline float max_lane(const F& x) {
  float most = x.v[0];
  for (int i = 1; i < 16; ++i) most = x.v[i] > most ? x.v[i] : most;
  return most;
}

inline Codes load_codes(const uint8_t* p) {
  Codes x;
  __builtin_memcpy(x.v, p, 64);
  return x;
}
inline Codes either(const Codes& a, const Codes& b) {
  Codes y;
  for (int i = 0; i < 64; ++i) y.v[i] = a.v[i] | b.v[i];
  return y;
}
/// Bytes shifted right by `right` (left if negative), then masked.
template <int right, int mask>
inline Codes bits_of(const Codes& x) {
  Codes y;
  for (int i = 0; i < 64; ++i) y.v[i] = uint8_t((right >= 0 ? x.v[i] >> (right & 7) : x.v[i] << (-right & 7)) & mask);
  return y;
}

/// Code bytes as they are, in float lanes that only move them.
inline F as_lanes(const Codes& x) { return same_bits<F>(x); }

/// Lane j of x[i] becomes lane i of x[j].
inline void transpose(F (&x)[16]) {
  F y[16];
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) __builtin_memcpy(&y[j].v[i], &x[i].v[j], sizeof(float));
  }
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

/// offset + Σ codes · q over `words` words of four, in every lane. Offset makes up for the codes' being unsigned.
/// `split` (two chains, for processors where a dot product is one instruction) makes no difference here.
template <int bits, int words, bool split>
inline I dot(const Codes* codes, const int8_t* q, int32_t offset) {
  I sum;
  for (int i = 0; i < 16; ++i) sum.v[i] = offset;
  for (int j = 0; j < words; ++j) {
    for (int i = 0; i < 16; ++i) {
      const uint8_t* c = codes[j].v + 4 * i;
      const int8_t* x = q + 4 * j;
      sum.v[i] += c[0] * x[0] + c[1] * x[1] + c[2] * x[2] + c[3] * x[3];
    }
  }
  return sum;
}

// ---- for levels with a matrix unit

/// Bytes less `b`, modulo 256.
inline Codes minus(const Codes& a, int b) {
  Codes y;
  for (int i = 0; i < 64; ++i) y.v[i] = uint8_t(a.v[i] - b);
  return y;
}
inline void store_codes(int8_t* p, const Codes& x) { __builtin_memcpy(p, x.v, 64); }
inline F load_i32(const int32_t* p) {
  return each([&](int i) { return float(p[i]); });
}
/// To the 16 upper bits, nearest, ties away from zero, for a finite x of at most the largest bf16.
inline F round_to_bf16(const F& x) {
  return each([&](int i) { return same_bits<float>((same_bits<uint32_t>(x.v[i]) + 0x8000) & 0xffff0000u); });
}
/// The lanes' upper halves.
inline void store_bf16(uint16_t* p, const F& x) {
  for (int i = 0; i < 16; ++i) p[i] = uint16_t(same_bits<uint32_t>(x.v[i]) >> 16);
}
/// Likewise of two vectors, lane by lane in turn.
inline void store_bf16_pairs(uint16_t* p, const F& even, const F& odd) {
  uint16_t pairs[32];
  for (int i = 0; i < 16; ++i) {
    pairs[2 * i] = uint16_t(same_bits<uint32_t>(even.v[i]) >> 16);
    pairs[2 * i + 1] = uint16_t(same_bits<uint32_t>(odd.v[i]) >> 16);
  }
  __builtin_memcpy(p, pairs, sizeof pairs);  // p may be where even and odd were
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
