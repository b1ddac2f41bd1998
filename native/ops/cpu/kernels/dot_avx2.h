// The dot product of bytes out of 16-bit products: AVX2 has none of its own.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// Leaves additions in the order written: GCC, free to choose one for integers, forms all products of a block first and has
/// registers for a few of them.
inline I as_added(I sum) {
  asm("" : "+x"(sum));
  return sum;
}

/// Unsigned codes of 8 bits as signed ones, less 128.
inline Codes signed_codes(Codes x) { return _mm256_xor_si256(x, _mm256_set1_epi8(-128)); }

// ---- bytes as 16-bit numbers (matmul_quantized_wide.h)

inline I even_bytes(Codes x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
inline I odd_bytes(Codes x) { return _mm256_srai_epi16(x, 8); }
inline I load_wide(const int16_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline void store_wide(int16_t* p, I x) { _mm256_storeu_si256((__m256i*)p, x); }
/// Two numbers in every lane.
inline I set1_pair(const int16_t* p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}
/// sum + both products of each lane.
inline I add_pairs(I sum, I a, I b) { return as_added(_mm256_add_epi32(sum, _mm256_madd_epi16(a, b))); }

/// offset + Σ codes · q over `words` words of four, in every lane. Offset makes up for the codes' being unsigned.
/// `split` (two chains, for processors where a dot product is one instruction) makes no difference here.
template <int bits, int words, bool split>
inline I dot(const Codes* codes, const int8_t* q, int32_t offset) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (bits == 8) {
    // Bytes above 127 would saturate the 16-bit pair sums. As signed numbers c = code - 128, |c| <= 128 times q with
    // c's sign is at most 128 · 127 · 2 = 32512; the offset is in that form already.
    (void)offset;
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = 0; j < words; ++j) {
      const __m256i c = signed_codes(codes[j]);
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(set1_word(q + 4 * j), c));
      sum = as_added(_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones)));
    }
    return sum;
  } else {
    // As many pair sums are added in 16 bits as cannot overflow: (2^bits - 1) · 127 · 2 · run <= 32767.
    constexpr int fit = 32767 / (((1 << bits) - 1) * 254), run = fit < words ? fit : words;
    static_assert(fit >= 1 && words % run == 0);
    __m256i sum = _mm256_set1_epi32(offset);
#pragma GCC unroll 8
    for (int j = 0; j < words; j += run) {
      __m256i pairs = _mm256_maddubs_epi16(codes[j], set1_word(q + 4 * j));
#pragma GCC unroll 8
      for (int i = 1; i < run; ++i) {
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes[j + i], set1_word(q + 4 * (j + i))));
      }
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum;
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
