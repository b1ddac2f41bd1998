// A kernel for each wrapper of gpu.h, and for the words of CUDA that the emulator has its own meaning of. One warp each: lane
// l reads kInputs words from in + l · kInputs and writes its registers to out + l · kOutputs, both 16-byte aligned.
#pragma once

#include "ops/cuda/gpu.h"

namespace minigpt4::conformance {

inline constexpr unsigned kAll = 0xffffffffu;

/// What all kernels have: the lane's words.
struct Lane {
  uint32_t* out;
  const uint32_t* in;
  __device__ Lane(uint32_t* all_out, int outputs, const uint32_t* all_in, int inputs)
      : out(all_out + int(threadIdx.x) * outputs), in(all_in + int(threadIdx.x) * inputs) {}
  __device__ void put(uint32_t word) { *out++ = word; }
  __device__ void put(uint2 words) { put(words.x), put(words.y); }
  __device__ void put(uint4 words) { put(words.x), put(words.y), put(words.z), put(words.w); }
  __device__ void put(float x) { put(__float_as_uint(x)); }
};

struct Loads {
  static constexpr int kInputs = 8, kOutputs = 21;
};
__global__ void loads(uint32_t* out, const uint32_t* in) {
  Lane lane(out, Loads::kOutputs, in, Loads::kInputs);
  lane.put(gpu::load32(lane.in + 1));
  lane.put(gpu::load64(lane.in + 2));
  lane.put(gpu::load128(lane.in + 4));
  lane.put(gpu::ldg32(lane.in + 1));
  lane.put(gpu::ldg64(lane.in + 2));
  lane.put(gpu::ldg128(lane.in + 4));
  lane.put(gpu::ldg32_once(lane.in + 1));
  lane.put(gpu::ldg64_once(lane.in + 2));
  lane.put(gpu::ldg128_once(lane.in + 4));
}

/// A link of a chain of launches that overlap: each begins with what the one before left, and takes long enough that a
/// launch which did not wait would read what was there before.
struct Link {
  static constexpr int kInputs = 4, kOutputs = 4;
};
__global__ void chain_link(uint32_t* out, const uint32_t* in) {
  gpu::wait_for_previous();
  Lane lane(out, Link::kOutputs, in, Link::kInputs);
  for (int i = 0; i < Link::kInputs; ++i) {
    uint32_t x = gpu::load32(lane.in + i);
    for (int turn = 0; turn < 4096; ++turn) x = x * 1664525u + 1013904223u;
    lane.put(x);
  }
}
/// Whether the kernels of this program, on this device, wait: else the chain's launches do not overlap.
__global__ void waits(uint32_t* out) { *out = gpu::can_wait_for_previous(); }

struct Copies {
  static constexpr int kInputs = 8, kOutputs = 16;
};
__global__ void copies(uint32_t* out, const uint32_t* in) {
  GPU_SHARED(uint4, to, [4][32]);
  Lane lane(out, Copies::kOutputs, in, Copies::kInputs);
  const int me = int(threadIdx.x);
  gpu::cp_async16(&to[0][me], lane.in);
  gpu::cp_async16(&to[1][me], lane.in + 4);
  gpu::cp_commit();
  gpu::cp_async16(&to[2][31 - me], lane.in, me % 2 == 0);
  gpu::cp_commit();
  gpu::cp_wait<1>();  // the first group is there, for its own thread
  lane.put(to[0][me]);
  lane.put(to[1][me]);
  gpu::cp_wait<0>();
  __syncthreads();
  lane.put(to[2][me]);
  gpu::cp_async16(&to[1][me], lane.in + 4, false);  // zeros take the place of what was there
  gpu::cp_commit();
  gpu::cp_wait<0>();
  lane.put(to[1][me]);
}

struct WideShared {
  static constexpr int kInputs = 4, kOutputs = 8;
  static constexpr int kWords = 32 * 200, kVectors = 32 * 56;
  /// More than a launch gets without asking for it.
  static constexpr size_t kBytes = gpu::shared_bytes<uint32_t>(kWords) + gpu::shared_bytes<uint4>(kVectors);
};
static_assert(WideShared::kBytes > 48 * 1024);
__global__ void wide_shared(uint32_t* out, const uint32_t* in) {
  gpu::DynamicShared shared;
  uint32_t* words = shared.take<uint32_t>(WideShared::kWords);
  uint4* vectors = shared.take<uint4>(WideShared::kVectors);
  Lane lane(out, WideShared::kOutputs, in, WideShared::kInputs);
  const int me = int(threadIdx.x);
  for (int i = me; i < WideShared::kWords; i += 32) words[i] = lane.in[0] + unsigned(i);
  for (int i = me; i < WideShared::kVectors; i += 32) vectors[i] = make_uint4(lane.in[1], unsigned(i), lane.in[2], 7);
  __syncthreads();
  uint32_t sum = 0;
  for (int i = 31 - me; i < WideShared::kWords; i += 32) sum += words[i] * unsigned(i);
  lane.put(sum);
  lane.put(words[WideShared::kWords - 1 - me]);
  lane.put(vectors[WideShared::kVectors - 1 - me]);
  // where parts lie among each other
  lane.put(unsigned(reinterpret_cast<uintptr_t>(words) % 128 == 0));
  lane.put(unsigned(reinterpret_cast<uintptr_t>(vectors) % 16 == 0));
}

struct MatrixLoads {
  static constexpr int kInputs = 4, kOutputs = 8;
};
__global__ void matrix_loads(uint32_t* out, const uint32_t* in) {
  GPU_SHARED(uint4, rows, [32]);
  Lane lane(out, MatrixLoads::kOutputs, in, MatrixLoads::kInputs);
  const int me = int(threadIdx.x);
  rows[me] = gpu::ldg128(lane.in);
  __syncthreads();
  uint32_t r[4];
  gpu::ldmatrix_x4(r, &rows[(me * 7 + 3) % 32]);
  for (const uint32_t word : r) lane.put(word);
  gpu::ldmatrix_x4_trans(r, &rows[(me * 5 + 1) % 32]);
  for (const uint32_t word : r) lane.put(word);
}

/// Inputs a[4], b[2], two unused, c[4]. Outputs: the product, then that of all absolute values: how large its terms are.
struct HalfProduct {
  static constexpr int kInputs = 12, kOutputs = 8;
};
template <class Multiply>
__device__ void half_product(uint32_t* out, const uint32_t* in, Multiply multiply) {
  Lane lane(out, HalfProduct::kOutputs, in, HalfProduct::kInputs);
  for (const bool sizes : {false, true}) {
    uint32_t a[4], b[2];
    float c[4];
    const uint32_t halves = sizes ? 0x7fff7fffu : kAll, whole = sizes ? 0x7fffffffu : kAll;
    for (int j = 0; j < 4; ++j) a[j] = lane.in[j] & halves;
    for (int j = 0; j < 2; ++j) b[j] = lane.in[4 + j] & halves;
    for (int j = 0; j < 4; ++j) c[j] = __uint_as_float(lane.in[8 + j] & whole);
    multiply(c, a, b);
    for (const float x : c) lane.put(x);
  }
}
__global__ void product_f16(uint32_t* out, const uint32_t* in) {
  half_product(out, in, [](float(&c)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) { gpu::mma_f16(c, a, b); });
}
__global__ void product_bf16(uint32_t* out, const uint32_t* in) {
  half_product(out, in, [](float(&c)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) { gpu::mma_bf16(c, a, b); });
}

/// Inputs as above. Outputs: the product with 32 columns, then that with 16.
struct ByteProduct {
  static constexpr int kInputs = 12, kOutputs = 8;
};
__global__ void product_s8(uint32_t* out, const uint32_t* in) {
  Lane lane(out, ByteProduct::kOutputs, in, ByteProduct::kInputs);
  const uint32_t a[4] = {lane.in[0], lane.in[1], lane.in[2], lane.in[3]}, b[2] = {lane.in[4], lane.in[5]};
  const uint32_t half_a[2] = {lane.in[0], lane.in[1]};
  int32_t c[4], d[4];
  for (int j = 0; j < 4; ++j) c[j] = d[j] = int32_t(lane.in[8 + j]);
  gpu::mma_s8_k32(c, a, b);
  gpu::mma_s8_k16(d, half_a, b[0]);
  for (const int32_t x : c) lane.put(uint32_t(x));
  for (const int32_t x : d) lane.put(uint32_t(x));
}

struct Conversions {
  static constexpr int kValues = 32, kInputs = kValues, kOutputs = 5 * kValues;
};
__global__ void conversions(uint32_t* out, const uint32_t* in) {
  Lane lane(out, Conversions::kOutputs, in, Conversions::kInputs);
  for (int i = 0; i < Conversions::kValues; ++i) {
    const uint32_t bits = lane.in[i];
    const float x = __uint_as_float(bits), y = __uint_as_float(lane.in[Conversions::kValues - 1 - i]);
    lane.put(uint32_t(gpu::to_f16(x).bits) | uint32_t(gpu::to_bf16(x).bits) << 16);
    lane.put(gpu::to_float(gpu::f16{uint16_t(bits)}));
    lane.put(gpu::to_float(gpu::bf16{uint16_t(bits)}));
    lane.put(gpu::pack_f16(x, y));
    lane.put(gpu::pack_bf16(x, y));
  }
}

/// All 65536 of both kinds, 2048 a lane, as one number a lane and kind.
struct AllHalves {
  static constexpr int kInputs = 4, kOutputs = 4;
};
__global__ void all_halves(uint32_t* out, const uint32_t* in) {
  Lane lane(out, AllHalves::kOutputs, in, AllHalves::kInputs);
  uint32_t hash_f16 = 1, hash_bf16 = 1, back = 0;
  for (unsigned i = 0; i < 2048; ++i) {
    const auto bits = uint16_t(threadIdx.x * 2048 + i);
    const float half = gpu::to_float(gpu::f16{bits}), brain = gpu::to_float(gpu::bf16{bits});
    hash_f16 = hash_f16 * 16777619u ^ __float_as_uint(half);
    hash_bf16 = hash_bf16 * 16777619u ^ __float_as_uint(brain);
    back += unsigned(gpu::to_f16(half).bits == bits) + unsigned(gpu::to_bf16(brain).bits == bits);
  }
  lane.put(hash_f16), lane.put(hash_bf16), lane.put(back), lane.put(0u);
}

/// Shuffles, votes and reductions over a warp.
struct WarpWords {
  static constexpr int kInputs = 4, kOutputs = 20;
};
__global__ void warp_words(uint32_t* out, const uint32_t* in) {
  Lane lane(out, WarpWords::kOutputs, in, WarpWords::kInputs);
  const uint32_t x = lane.in[0];
  const unsigned long long wide = (unsigned long long)(lane.in[1]) << 32 | x;
  lane.put(__shfl_sync(kAll, x, int(lane.in[2])));  // the lane modulo 32
  lane.put(__shfl_sync(kAll, x, 3, 8));
  lane.put(__shfl_up_sync(kAll, x, 5));
  lane.put(__shfl_up_sync(kAll, x, 3, 16));
  lane.put(__shfl_down_sync(kAll, x, 7));
  lane.put(__shfl_down_sync(kAll, x, 2, 4));
  lane.put(__shfl_xor_sync(kAll, x, 13));
  lane.put(uint32_t(__shfl_xor_sync(kAll, wide, 1) >> 32));
  lane.put(__ballot_sync(kAll, int(x & 4)));
  lane.put(uint32_t(__any_sync(kAll, x == lane.in[3]) != 0));
  lane.put(uint32_t(__all_sync(kAll, 1) != 0));
  lane.put(__reduce_add_sync(kAll, x));
  lane.put(__reduce_min_sync(kAll, x));
  lane.put(__reduce_max_sync(kAll, x));
  lane.put(uint32_t(__reduce_min_sync(kAll, int(x))));
  lane.put(uint32_t(__reduce_max_sync(kAll, int(x))));
  lane.put(__reduce_and_sync(kAll, x | 0xffff));
  lane.put(__reduce_or_sync(kAll, x & 0xff00ff));
  lane.put(__reduce_xor_sync(kAll, x));
  lane.put(0u);
}

/// Words that work on bits and integers, and correctly rounded arithmetic.
struct ExactWords {
  static constexpr int kInputs = 4, kOutputs = 24;
};
__global__ void exact_words(uint32_t* out, const uint32_t* in) {
  Lane lane(out, ExactWords::kOutputs, in, ExactWords::kInputs);
  const uint32_t x = lane.in[0], y = lane.in[1], z = lane.in[2];
  // between 2^-8 and 2^8, either sign
  const auto modest = [](uint32_t w) { return __uint_as_float((w & 0x807fffffu) | (119 + (w >> 23) % 16) << 23); };
  const float a = modest(x), b = modest(y), c = modest(z);
  lane.put(uint32_t(__dp4a(int(x), int(y), int(z))));
  lane.put(__dp4a(x, y, z));
  lane.put(__byte_perm(x, y, z & 0xffff));
  lane.put(__funnelshift_l(x, y, z));
  lane.put(__funnelshift_r(x, y, z));
  lane.put(__brev(x));
  lane.put(uint32_t(__popc(x)));
  lane.put(uint32_t(__clz(int(x >> (y % 32)))));
  lane.put(uint32_t(__ffs(int(x << (y % 32)))));
  lane.put(__umulhi(x, y));
  lane.put(uint32_t(__mulhi(int(x), int(y))));
  lane.put(uint32_t(__float2int_rn(a)));
  lane.put(uint32_t(__float2int_rz(__uint_as_float(z))));  // any float: saturates
  lane.put(uint32_t(__float2int_rd(a)));
  lane.put(uint32_t(__float2int_ru(a)));
  lane.put(fmaf(a, b, c));
  lane.put(a * b + c);  // rounded twice: nothing is fused that is not written so
  lane.put(a / b);
  lane.put(sqrtf(fabsf(a)));
  lane.put(float(double(a) / double(b)));
  lane.put(fmaxf(a, __uint_as_float(0x7fc00000)));
  lane.put(rintf(a * 0.5f));
  lane.put(float(int(x)));
  lane.put(float(x));
}

/// Functions that the device computes in its own way, to a few units in the last place.
struct Functions {
  static constexpr int kInputs = 64, kOutputs = 64;
};
template <class Function>
__device__ void functions_of(uint32_t* out, const uint32_t* in, Function function) {
  Lane lane(out, Functions::kOutputs, in, Functions::kInputs);
  for (int i = 0; i < Functions::kInputs; ++i) lane.put(function(__uint_as_float(lane.in[i])));
}
__global__ void exp2_approx(uint32_t* out, const uint32_t* in) {
  functions_of(out, in, [](float x) { return gpu::exp2_approx(x); });
}
__global__ void exponential(uint32_t* out, const uint32_t* in) {
  functions_of(out, in, [](float x) { return expf(x); });
}
__global__ void complementary_error(uint32_t* out, const uint32_t* in) {
  functions_of(out, in, [](float x) { return erfcf(x); });
}
__global__ void inverse_root(uint32_t* out, const uint32_t* in) {
  functions_of(out, in, [](float x) { return rsqrtf(fabsf(x)); });
}

}  // namespace minigpt4::conformance
