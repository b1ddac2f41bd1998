// gpu.h for nvcc: thin. Every inline PTX of the project is here, one instruction a function (PTX ISA 8.x, sections named
// below); simt/gpu_simt.h has the same names with the same meaning for the CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

/// A static array in shared memory: GPU_SHARED(float, tile, [32][33]); 16-byte aligned. At the top of a kernel's scope.
#define GPU_SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions

namespace minigpt4::gpu {

// ---- 16-bit floats: storage only, all arithmetic is float32

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};
__device__ inline float to_float(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ inline float to_float(bf16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }
/// To nearest even; overflow gives infinity.
__device__ inline f16 to_f16(float x) { return {__half_as_ushort(__float2half_rn(x))}; }
__device__ inline bf16 to_bf16(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }
/// Two in a register, `low` in the lower half.
__device__ inline uint32_t pack_f16(float low, float high) {
  return uint32_t(to_f16(low).bits) | uint32_t(to_f16(high).bits) << 16;
}
__device__ inline uint32_t pack_bf16(float low, float high) {
  return uint32_t(to_bf16(low).bits) | uint32_t(to_bf16(high).bits) << 16;
}

// ---- memory

/// Loads 4, 8, 16 bytes, aligned so.
__device__ inline uint32_t load32(const void* p) { return *static_cast<const uint32_t*>(p); }
__device__ inline uint2 load64(const void* p) { return *static_cast<const uint2*>(p); }
__device__ inline uint4 load128(const void* p) { return *static_cast<const uint4*>(p); }
/// The same of memory that nobody writes during the launch (ld.global.nc). What a launch that overlaps waits for is written
/// during it, and the compiler may move these loads before the wait: there for weights alone.
__device__ inline uint32_t ldg32(const void* p) { return __ldg(static_cast<const uint32_t*>(p)); }
__device__ inline uint2 ldg64(const void* p) { return __ldg(static_cast<const uint2*>(p)); }
__device__ inline uint4 ldg128(const void* p) { return __ldg(static_cast<const uint4*>(p)); }
/// The same for what is read once and should not push other things out of the caches (weights in decoding).
__device__ inline uint32_t ldg32_once(const void* p) { return __ldcs(static_cast<const uint32_t*>(p)); }
__device__ inline uint2 ldg64_once(const void* p) { return __ldcs(static_cast<const uint2*>(p)); }
__device__ inline uint4 ldg128_once(const void* p) { return __ldcs(static_cast<const uint4*>(p)); }

/// Starts copying 16 bytes from global to shared memory, both 16-byte aligned; with `valid` false writes 16 zero bytes
/// and reads nothing (cp.async.cg).
__device__ inline void cp_async16(void* shared, const void* global, bool valid = true) {
  const uint32_t to = uint32_t(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
/// Closes the group of the copies started so far by this thread.
__device__ inline void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most N of this thread's groups are unfinished; others see the data after a __syncthreads() only.
template <int N>
__device__ inline void cp_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Dynamic shared memory in parts. Every thread makes one, and takes the same parts in the same order; the host gives
/// the launch the sum of shared_bytes().
template <class T>
constexpr size_t shared_bytes(size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}
class DynamicShared {
 public:
  template <class T>
  __device__ T* take(int count) {
    extern __shared__ __align__(128) unsigned char gpu_dynamic_shared[];
    T* part = reinterpret_cast<T*>(gpu_dynamic_shared + used_);
    used_ += unsigned(shared_bytes<T>(size_t(count)));
    return part;
  }

 private:
  unsigned used_ = 0;
};

// ---- launches that overlap

/// The first words of a kernel that is launched to overlap (Launch::overlapping): every thread waits until the launch before
/// it in the stream has ended and all that it wrote can be read (griddepcontrol.wait). Nothing where the launch does not
/// overlap. No thread touches global memory before it, nor ends without it: a launch then ends after all that came before.
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Whether wait_for_previous() waits in the code that runs. Not the same as the device's capability: a new device also runs
/// what was compiled for an old one, and there no kernel would wait.
__device__ inline bool can_wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return true;
#else
  return false;
#endif
}

// ---- matrix units. Lane = 4g + q throughout.

/// Four 8x8 matrices of 16-bit values: lane i gives the address of row i % 8 of matrix i / 8 (16 bytes, aligned so, shared
/// memory); r[m] is then row g, columns 2q and 2q + 1 of matrix m (ldmatrix.sync.aligned.m8n8.x4.shared.b16).
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const uint32_t at = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
/// The same, each matrix transposed: r[m] is column g, rows 2q and 2q + 1.
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  const uint32_t at = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

/// c[16, 8] += a[16, 16] · b[16, 8], float32 sums. a[j]: row g + 8 (j % 2), columns 2q + 8 (j / 2) and the next; b[j]: rows
/// 2q + 8j and the next, column g; c[j]: row g + 8 (j / 2), column 2q + j % 2. Lower half of a register: lower index.
__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// c[16, 8] += a[16, 32] · b[32, 8] of signed bytes, exact. a[j]: row g + 8 (j % 2), columns 4q + 16 (j / 2) and the next
/// three; b[j]: rows 4q + 16j and the next three, column g; c as above. Lowest byte: lowest index.
__device__ inline void mma_s8_k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// c[16, 8] += a[16, 16] · b[16, 8] of signed bytes: the first half of the above (a[j]: row g + 8j).
__device__ inline void mma_s8_k16(int32_t (&c)[4], const uint32_t (&a)[2], uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
}

// ---- arithmetic

/// 2^x to within 2 units in the last place; results below 2^-126 become 0 (ex2.approx.ftz.f32).
__device__ inline float exp2_approx(float x) {
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- launches (host)

struct Launch {
  dim3 grid, block;
  size_t shared = 0;  // bytes of dynamic shared memory
  cudaStream_t stream = nullptr;
  bool overlapping = false;  // may begin before the one before has ended; for kernels that wait_for_previous() alone
};

inline cudaError_t allow_shared(const void* kernel, size_t bytes);  // shared_allowance.h

/// Starts a kernel; arguments are converted to the kernel's parameters. The error is the runtime's, also for a launch
/// that could not be made; what goes wrong inside shows at a later synchronisation.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Launch& how, Arguments&&... arguments) {
  const cudaError_t allowance = allow_shared(reinterpret_cast<const void*>(kernel), how.shared);
  if (allowance != cudaSuccess) return allowance;
  cudaLaunchConfig_t config = {};
  config.gridDim = how.grid;
  config.blockDim = how.block;
  config.dynamicSmemBytes = how.shared;
  config.stream = how.stream;
  cudaLaunchAttribute overlap = {};
  if (how.overlapping) {
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace minigpt4::gpu
