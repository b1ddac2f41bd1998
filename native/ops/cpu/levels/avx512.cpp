// AVX-512 with VNNI: x86 servers since 2019, Zen 4. Compiled with flags of its own: include nothing here whose inline
// code another file could be given. The bf16 dot product is not used on purpose: it rounds activations to 8 bits of
// mantissa, and it is half as fast as float32 on Intel; the matrix unit (amx.cpp) is what bf16 pays for.
#define MINIGPT4_LEVEL avx512
#include "ops/cpu/levels/level.h"

#include "ops/cpu/kernels/simd_avx512.h"
// over its vectors
#include "ops/cpu/kernels/dot_words.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {
constexpr int kRows = 12, kSums = 24, kQuantizedRows = 8, kGroupsAtOnce = 3;
constexpr bool kRowPairs = false;
}  // namespace minigpt4::cpu::MINIGPT4_LEVEL

#include "ops/cpu/kernels/level_table.h"
// what kGroupsAtOnce asks for
#include "ops/cpu/kernels/matmul_quantized_groups.h"

namespace minigpt4::cpu {

const Level& level_avx512() {
  static constexpr Level table = MINIGPT4_LEVEL::table("avx512");
  return table;
}

}  // namespace minigpt4::cpu
