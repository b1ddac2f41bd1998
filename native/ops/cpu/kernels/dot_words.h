// The dot product of bytes for x86 levels where four of them are one instruction (add_dot).
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// offset + Σ codes · q over `words` words of four, in every lane. Offset makes up for the codes' being unsigned.
/// `split`: as two chains.
template <int bits, int words, bool split>
inline I dot(const Codes* codes, const int8_t* q, int32_t offset) {
  I sum = set1_int(offset), odd = set1_int(0);
#pragma GCC unroll 8
  for (int j = 0; j < words; ++j) {
    I& to = split && j % 2 ? odd : sum;
    to = add_dot(to, codes[j], set1_word(q + 4 * j));
  }
  return split ? add_int(sum, odd) : sum;
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
