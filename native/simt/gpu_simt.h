// gpu.h for a plain C++ compiler: the names of ops/cuda/gpu_nvcc.h, same meaning, run on the CPU by the emulator.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "simt/device_math.h"
#include "simt/device_words.h"
#include "simt/runtime.h"

/// A static array in shared memory: GPU_SHARED(float, tile, [32][33]); 16-byte aligned. At the top of a kernel's scope.
/// The address of a static variable names the declaration, for each instance of a template apart.
#define GPU_SHARED(type, name, dimensions)                                                           \
  using SimtSharedType_##name = type dimensions;                                                     \
  static const char simt_shared_key_##name = 0;                                                      \
  SimtSharedType_##name& name = *static_cast<SimtSharedType_##name*>(::minigpt4::simt::shared_array( \
      &simt_shared_key_##name, sizeof(SimtSharedType_##name), #name, __FILE__, __LINE__))

template <class T>
__forceinline__ T __ldg(const T* p) {
  return *p;
}
template <class T>
__forceinline__ T __ldcs(const T* p) {
  return *p;
}

namespace minigpt4::simt {

// Shared memory (shared_memory.cpp): the address of this block's array, poisoned when first asked for.
void* shared_array(const void* key, size_t bytes, const char* name, const char* file, int line);
void* dynamic_part(size_t offset, size_t bytes, const char* file, int line);

// Asynchronous copies (copies.cpp).
void copy_issue(void* shared, const void* global, bool valid, const char* file, int line);
void copy_commit();
void copy_wait(unsigned unfinished);

// Launches that overlap (execution.cpp).
void previous_waited_for();
bool device_overlaps();

// Matrix units (matrix_units.cpp).
enum class Matrix { f16_k16, bf16_k16, s8_k32, s8_k16 };
void matrix_multiply(Matrix kind, void* c, const uint32_t* a, const uint32_t* b, const char* file, int line);
void matrix_load(uint32_t* r, const void* row, bool transposed, const char* file, int line);

/// Reports an address that is not a multiple of `bytes` and gives up the launch.
[[noreturn]] void misaligned(const void* address, unsigned bytes, const char* file, int line);
template <class T>
__forceinline__ T load_aligned(const void* p, const char* file, int line) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T) != 0) [[unlikely]]
    misaligned(p, sizeof(T), file, line);
  return *static_cast<const T*>(p);
}

/// A kernel with its arguments: bytes of a std::tuple of the kernel's parameters, copied onto each thread's stack.
struct KernelCall {
  const void* kernel;
  void (*invoke)(const void* kernel, void* arguments);
  const void* arguments;
  size_t argument_bytes;
};
cudaError_t launch_kernel(const KernelCall& call, const dim3& grid, const dim3& block, size_t shared,
                          cudaStream_t stream, bool overlapping, const char* file, int line);

}  // namespace minigpt4::simt

namespace minigpt4::gpu {

// ---- 16-bit floats: storage only, all arithmetic is float32

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};
inline float to_float(f16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  if (magnitude >= 0x7c00) {
    // the device gives one NaN for all
    return std::bit_cast<float>(magnitude > 0x7c00 ? sign | 0x7fc00000u | (magnitude & 0x3ff) << 13
                                                   : sign | 0x7f800000u);
  }
  // the exponent moved into a float's place makes the value too small by 2^112, subnormals included
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}
inline float to_float(bf16 x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }
/// To nearest even; overflow gives infinity.
inline f16 to_f16(float x) {
  const uint32_t whole = std::bit_cast<uint32_t>(x), sign = (whole >> 16) & 0x8000, bits = whole & 0x7fffffff;
  if (bits > 0x7f800000) return {0x7fff};                    // the device's NaN
  if (bits >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and more: nearer to 2^16 than to 65504, or a tie
  if (bits < 0x38800000) {                                   // below 2^-14: steps of 2^-24, as those of floats near 0.5
    const uint32_t steps = std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + 0.5f) - 0x3f000000u;
    return {uint16_t(sign | steps)};
  }
  return {uint16_t(sign | (bits - 0x38000000u + 0xfff + ((bits >> 13) & 1)) >> 13)};
}
inline bf16 to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};  // the device's NaN
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
/// Two in a register, `low` in the lower half.
inline uint32_t pack_f16(float low, float high) {
  return uint32_t(to_f16(low).bits) | uint32_t(to_f16(high).bits) << 16;
}
inline uint32_t pack_bf16(float low, float high) {
  return uint32_t(to_bf16(low).bits) | uint32_t(to_bf16(high).bits) << 16;
}

// ---- memory

/// Loads 4, 8, 16 bytes, aligned so.
__forceinline__ uint32_t load32(const void* p, SIMT_SITE) { return simt::load_aligned<uint32_t>(p, file, line); }
__forceinline__ uint2 load64(const void* p, SIMT_SITE) { return simt::load_aligned<uint2>(p, file, line); }
__forceinline__ uint4 load128(const void* p, SIMT_SITE) { return simt::load_aligned<uint4>(p, file, line); }
/// The same of memory that nobody writes during the launch.
__forceinline__ uint32_t ldg32(const void* p, SIMT_SITE) { return simt::load_aligned<uint32_t>(p, file, line); }
__forceinline__ uint2 ldg64(const void* p, SIMT_SITE) { return simt::load_aligned<uint2>(p, file, line); }
__forceinline__ uint4 ldg128(const void* p, SIMT_SITE) { return simt::load_aligned<uint4>(p, file, line); }
__forceinline__ uint32_t ldg32_once(const void* p, SIMT_SITE) { return simt::load_aligned<uint32_t>(p, file, line); }
__forceinline__ uint2 ldg64_once(const void* p, SIMT_SITE) { return simt::load_aligned<uint2>(p, file, line); }
__forceinline__ uint4 ldg128_once(const void* p, SIMT_SITE) { return simt::load_aligned<uint4>(p, file, line); }

/// Starts copying 16 bytes from global to shared memory. Until the cp_wait that covers it, `shared` holds NaN.
inline void cp_async16(void* shared, const void* global, bool valid = true, SIMT_SITE) {
  simt::copy_issue(shared, global, valid, file, line);
}
inline void cp_commit() { simt::copy_commit(); }
template <int N>
inline void cp_wait() {
  simt::copy_wait(N);
}

template <class T>
constexpr size_t shared_bytes(size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}
class DynamicShared {
 public:
  template <class T>
  T* take(int count, SIMT_SITE) {
    void* part = simt::dynamic_part(used_, count < 0 ? 0 : size_t(count) * sizeof(T), file, line);
    used_ += unsigned(shared_bytes<T>(size_t(count)));
    return static_cast<T*>(part);
  }

 private:
  unsigned used_ = 0;
};

// ---- launches that overlap. Here they run one after the other all the same; what a kernel does too early is found.

inline void wait_for_previous() { simt::previous_waited_for(); }
inline bool can_wait_for_previous() { return simt::device_overlaps(); }

// ---- matrix units. Lane = 4g + q throughout; the fragments are described in gpu_nvcc.h.

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, SIMT_SITE) { simt::matrix_load(r, row, false, file, line); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, SIMT_SITE) {
  simt::matrix_load(r, row, true, file, line);
}
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {
  simt::matrix_multiply(simt::Matrix::f16_k16, c, a, b, file, line);
}
inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {
  simt::matrix_multiply(simt::Matrix::bf16_k16, c, a, b, file, line);
}
inline void mma_s8_k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {
  simt::matrix_multiply(simt::Matrix::s8_k32, c, a, b, file, line);
}
inline void mma_s8_k16(int32_t (&c)[4], const uint32_t (&a)[2], uint32_t b, SIMT_SITE) {
  simt::matrix_multiply(simt::Matrix::s8_k16, c, a, &b, file, line);
}

// ---- arithmetic

/// 2^x to within 2 units in the last place; results below 2^-126 become 0.
inline float exp2_approx(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

// ---- launches (host)

struct Launch {
  dim3 grid, block;
  size_t shared = 0;  // bytes of dynamic shared memory
  cudaStream_t stream = nullptr;
  bool overlapping = false;  // may begin before the one before has ended; for kernels that wait_for_previous() alone
  // filled in by the compiler: where the launch stands
  const char* file = __builtin_FILE();
  int line = __builtin_LINE();
};

inline cudaError_t allow_shared(const void* kernel, size_t bytes);  // ops/cuda/shared_allowance.h

/// Starts a kernel; arguments are converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Launch& how, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "a kernel takes as many arguments as it has parameters");
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernel parameters are copied byte by byte");
  static_assert((!std::is_reference_v<Parameters> && ...), "a kernel's parameters are values");
  const cudaError_t allowance = allow_shared(reinterpret_cast<const void*>(kernel), how.shared);
  if (allowance != cudaSuccess) return allowance;
  using Packed = std::tuple<Parameters...>;
  static_assert(alignof(Packed) <= 64);
  Packed packed(static_cast<Parameters>(arguments)...);
  const auto invoke = [](const void* function, void* bytes) {
    std::apply(reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(function)), *static_cast<Packed*>(bytes));
  };
  return simt::launch_kernel({reinterpret_cast<const void*>(kernel), invoke, &packed, sizeof(Packed)}, how.grid,
                             how.block, how.shared, how.stream, how.overlapping, how.file, how.line);
}

}  // namespace minigpt4::gpu
