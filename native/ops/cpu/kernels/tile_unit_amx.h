// The matrix unit's vocabulary in AMX instructions. Tiles are registers, named when the code is compiled. Written as
// assembly because the compilers' own intrinsics say too little: GCC's tile load does not tell that it reads memory and its
// load of the configuration tells 8 of the 64 bytes, so stores that either needs may be moved or dropped.
#pragma once

#include "ops/cpu/kernels/tile_shapes.h"

namespace minigpt4::cpu::MINIGPT4_LEVEL {

inline void tile_configure(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
/// The thread has no tiles any more, and nothing of them to save when it is switched.
inline void tile_release() { asm volatile("tilerelease"); }

template <int tile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
/// Rows `stride` bytes apart.
template <int tile>
inline void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
inline void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
}

/// c[m][n] += Σ a[m][4 k + i] · b[k][4 n + i], signed bytes, exact in int32.
template <int c, int a, int b>
inline void tile_dot_i8() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}
/// c[m][n] += Σ a[m][2 k + i] · b[k][2 n + i], bf16 in float32: the even products and the odd ones are each one chain of fused
/// multiply-adds from zero, then added to one another and to c. To nearest even; subnormal inputs and results are zero.
template <int c, int a, int b>
inline void tile_dot_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
