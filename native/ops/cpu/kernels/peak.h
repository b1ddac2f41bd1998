// What the level's instructions can do at most, from registers alone, and how fast they read memory: the limits that a
// measurement of this machine compares products with (Peaks in level.h).
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// Chains side by side: two units with a latency of four or five cycles need ten, and sixteen registers hold twelve
/// and the factors.
constexpr int kPeakChains = 12;

/// The factor is below one, so that the sums stay near addend / (1 - factor), far from numbers that are slow.
inline double fma_peak(int64_t rounds, const PeakSeed& seed) {
  F sums[kPeakChains];
  for (int i = 0; i < kPeakChains; ++i) sums[i] = set1(float(i));
  const F factor = set1(seed.factor), addend = set1(seed.addend);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kPeakChains; ++i) sums[i] = fma(sums[i], factor, addend);
  }
  float lanes[kLanes], all = 0;
  for (const F& sum : sums) {
    store(lanes, sum);
    for (const float lane : lanes) all += lane;
  }
  *seed.result = uint64_t(int64_t(all));
  return 2.0 * kLanes * kPeakChains * double(rounds);
}

#if defined(__AVX2__) || defined(__ARM_FEATURE_DOTPROD)

// The int8 product of this level, of one register. The empty asm says that a register may have changed, where a compiler
// could see that a product is the same again.
#if defined(__AVX512VNNI__)
using Dot = __m512i;
inline Dot dot_step(Dot sum, Dot& a, Dot b) { return _mm512_dpbusd_epi32(sum, a, b); }
inline Dot dot_set(uint8_t x) { return _mm512_set1_epi8(char(x)); }
#elif defined(__AVXVNNI__)
using Dot = __m256i;
inline Dot dot_step(Dot sum, Dot& a, Dot b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
inline Dot dot_set(uint8_t x) { return _mm256_set1_epi8(char(x)); }
#elif defined(__AVX2__)
using Dot = __m256i;
inline Dot dot_step(Dot sum, Dot& a, Dot b) {
  asm volatile("" : "+x"(a));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
inline Dot dot_set(uint8_t x) { return _mm256_set1_epi8(char(x)); }
#elif defined(__ARM_FEATURE_MATMUL_INT8)
using Dot = int8x16_t;
inline Dot dot_step(Dot sum, Dot& a, Dot b) {
  return vreinterpretq_s8_s32(vmmlaq_s32(vreinterpretq_s32_s8(sum), a, b));
}
inline Dot dot_set(uint8_t x) { return vdupq_n_s8(int8_t(x)); }
#else
using Dot = int8x16_t;
inline Dot dot_step(Dot sum, Dot& a, Dot b) { return vreinterpretq_s8_s32(vdotq_s32(vreinterpretq_s32_s8(sum), a, b)); }
inline Dot dot_set(uint8_t x) { return vdupq_n_s8(int8_t(x)); }
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int kDotOperations = 64;  // a product of 2 × 8 and 8 × 2
#else
constexpr int kDotOperations = 2 * int(sizeof(Dot));
#endif

inline double dot_peak(int64_t rounds, const PeakSeed& seed) {
  Dot sums[kPeakChains];
  for (int i = 0; i < kPeakChains; ++i) sums[i] = dot_set(uint8_t(i));
  Dot a = dot_set(seed.code);
  const Dot b = dot_set(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kPeakChains; ++i) sums[i] = dot_step(sums[i], a, b);
  }
  uint8_t bytes[sizeof(Dot)];
  uint64_t all = 0;
  for (const Dot& sum : sums) {
    __builtin_memcpy(bytes, &sum, sizeof(Dot));
    for (const uint8_t byte : bytes) all += byte;
  }
  *seed.result = all;
  return double(kDotOperations) * kPeakChains * double(rounds);
}

#else
constexpr PeakLoop dot_peak = nullptr;
#endif

/// A multiple of 4096 bytes from `p` on; several sums side by side, so that no step waits for the one before it.
inline uint64_t read_peak(const uint8_t* p, size_t bytes) {
  constexpr int kReadChains = 8;
  constexpr size_t kStep = sizeof(Codes);
  Codes sums[kReadChains];
  for (int i = 0; i < kReadChains; ++i) sums[i] = load_codes(p + i * kStep);
  for (size_t at = 0; at < bytes; at += kReadChains * kStep) {
#pragma GCC unroll 8
    for (int i = 0; i < kReadChains; ++i) sums[i] = either(sums[i], load_codes(p + at + i * kStep));
  }
  uint8_t lanes[kStep];
  uint64_t all = 0;
  for (const Codes& sum : sums) {
    __builtin_memcpy(lanes, &sum, kStep);
    for (const uint8_t lane : lanes) all += lane;
  }
  return all;
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
