// The dot product of bytes as one instruction on vectors of 256 bits: AVX-VNNI, or the same with AVX-512's encoding.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// sum + codes · the word of each lane.
inline I add_dot(I sum, Codes codes, I word) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(sum, codes, word);
#else
  return _mm256_dpbusd_epi32(sum, codes, word);
#endif
}

/// offset + Σ codes · q over `words` words of four, in every lane. Offset makes up for the codes' being unsigned.
/// `split`: as two chains.
template <int bits, int words, bool split>
inline I dot(const Codes* codes, const int8_t* q, int32_t offset) {
  I sum = _mm256_set1_epi32(offset), odd = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int j = 0; j < words; ++j) {
    I& to = split && j % 2 ? odd : sum;
    to = add_dot(to, codes[j], set1_word(q + 4 * j));
  }
  return split ? _mm256_add_epi32(sum, odd) : sum;
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
