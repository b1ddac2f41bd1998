// The product of bytes as one instruction on vectors of 256 bits: AVX-VNNI, or the same with AVX-512's encoding.
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

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
