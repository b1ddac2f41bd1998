// CUDA's own words for a plain C++ compiler: qualifiers, thread indices, barriers, warp collectives, atomics. Each
// collective's last two arguments are filled in by the compiler: the place of the call, for reports.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt/context.h"
#include "simt/launch_bounds.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)

#define threadIdx (::minigpt4::simt::thread_index())
#define blockIdx (::minigpt4::simt::block_index())
#define blockDim (::minigpt4::simt::block_dimensions())
#define gridDim (::minigpt4::simt::grid_dimensions())

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace minigpt4::simt {

// For the checker's build: elsewhere, so that reading the emulator's own memory is not taken for an access of the
// kernel. A thread's indices never change, so the compiler may keep them.
__attribute__((const)) uint3 thread_index_elsewhere();
__attribute__((const)) uint3 block_index_elsewhere();
__attribute__((const)) dim3 block_dimensions_elsewhere();
__attribute__((const)) dim3 grid_dimensions_elsewhere();

#ifdef __SANITIZE_THREAD__
#define SIMT_INDEX(name, type) \
  __forceinline__ type name() { return name##_elsewhere(); }
SIMT_INDEX(thread_index, uint3)
SIMT_INDEX(block_index, uint3)
SIMT_INDEX(block_dimensions, dim3)
SIMT_INDEX(grid_dimensions, dim3)
#undef SIMT_INDEX
#else
__forceinline__ const uint3& thread_index() { return current->thread_index; }
__forceinline__ const uint3& block_index() { return current->block->index; }
__forceinline__ const dim3& block_dimensions() { return current->block->launch->block; }
__forceinline__ const dim3& grid_dimensions() { return current->block->launch->grid; }
#endif

enum class Shuffle { indexed, up, down, exclusive_or };
enum class Vote { ballot, any, all };
enum class Reduce { add, min_signed, max_signed, min_unsigned, max_unsigned, bit_and, bit_or, bit_xor };
enum class Atomic { add, min, max, bit_and, bit_or, bit_xor, exchange };

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int lane, int width, const char* file, int line);
uint32_t vote(Vote kind, uint32_t mask, bool predicate, const char* file, int line);
uint32_t reduce(Reduce kind, uint32_t mask, uint32_t value, const char* file, int line);
void sync_threads(const char* file, int line);
void sync_warp(uint32_t mask, const char* file, int line);
template <class T>
T atomic(Atomic kind, T* address, T value, const char* file, int line);
template <class T>
T atomic_compare_exchange(T* address, T expected, T value, const char* file, int line);

template <class T>
T shuffle_value(Shuffle kind, uint32_t mask, T value, int lane, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles move 32 or 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, lane, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace minigpt4::simt

inline void __syncthreads(SIMT_SITE) { ::minigpt4::simt::sync_threads(file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE) { ::minigpt4::simt::sync_warp(mask, file, line); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_SITE) {
  using namespace ::minigpt4::simt;
  return shuffle_value(Shuffle::indexed, mask, value, lane, width, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  using namespace ::minigpt4::simt;
  return shuffle_value(Shuffle::up, mask, value, int(delta), width, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  using namespace ::minigpt4::simt;
  return shuffle_value(Shuffle::down, mask, value, int(delta), width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_SITE) {
  using namespace ::minigpt4::simt;
  return shuffle_value(Shuffle::exclusive_or, mask, value, lane_mask, width, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return ::minigpt4::simt::vote(::minigpt4::simt::Vote::ballot, mask, predicate != 0, file, line);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return int(::minigpt4::simt::vote(::minigpt4::simt::Vote::any, mask, predicate != 0, file, line));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return int(::minigpt4::simt::vote(::minigpt4::simt::Vote::all, mask, predicate != 0, file, line));
}

#define SIMT_REDUCE(name, type, kind)                                                                         \
  inline type name(unsigned mask, type value, SIMT_SITE) {                                                    \
    return type(::minigpt4::simt::reduce(::minigpt4::simt::Reduce::kind, mask, uint32_t(value), file, line)); \
  }
SIMT_REDUCE(__reduce_add_sync, int, add)
SIMT_REDUCE(__reduce_add_sync, unsigned, add)
SIMT_REDUCE(__reduce_min_sync, int, min_signed)
SIMT_REDUCE(__reduce_min_sync, unsigned, min_unsigned)
SIMT_REDUCE(__reduce_max_sync, int, max_signed)
SIMT_REDUCE(__reduce_max_sync, unsigned, max_unsigned)
SIMT_REDUCE(__reduce_and_sync, unsigned, bit_and)
SIMT_REDUCE(__reduce_or_sync, unsigned, bit_or)
SIMT_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef SIMT_REDUCE

#define SIMT_ATOMIC(name, type, kind)                                                            \
  inline type name(type* address, type value, SIMT_SITE) {                                       \
    return ::minigpt4::simt::atomic(::minigpt4::simt::Atomic::kind, address, value, file, line); \
  }
#define SIMT_ATOMIC_INTEGERS(name, kind) \
  SIMT_ATOMIC(name, int, kind)           \
  SIMT_ATOMIC(name, unsigned, kind)      \
  SIMT_ATOMIC(name, unsigned long long, kind)
SIMT_ATOMIC_INTEGERS(atomicAdd, add)
SIMT_ATOMIC(atomicAdd, float, add)
SIMT_ATOMIC_INTEGERS(atomicMin, min)
SIMT_ATOMIC_INTEGERS(atomicMax, max)
SIMT_ATOMIC_INTEGERS(atomicAnd, bit_and)
SIMT_ATOMIC_INTEGERS(atomicOr, bit_or)
SIMT_ATOMIC_INTEGERS(atomicXor, bit_xor)
SIMT_ATOMIC_INTEGERS(atomicExch, exchange)
SIMT_ATOMIC(atomicExch, float, exchange)
#undef SIMT_ATOMIC_INTEGERS
#undef SIMT_ATOMIC

#define SIMT_ATOMIC_CAS(type)                                                               \
  inline type atomicCAS(type* address, type expected, type value, SIMT_SITE) {              \
    return ::minigpt4::simt::atomic_compare_exchange(address, expected, value, file, line); \
  }
SIMT_ATOMIC_CAS(int)
SIMT_ATOMIC_CAS(unsigned)
SIMT_ATOMIC_CAS(unsigned long long)
#undef SIMT_ATOMIC_CAS
