// One step of flash attention on the matrix units (Dao et al., arXiv:2205.14135): 16 queries against kStep keys, all of them
// 16-bit floats in shared memory, scores and sums float32. The kernels that use it (over pages: few or many queries; dense)
// give a row the same bits because a row's sums are made here alone, in this order:
//
//   score   over the head's width, 16 values an instruction, from the first on; then times `factor` (scale · log2 e)
//   weight  2^(score - largest so far), rounded to 16 bits; a key that the row does not see has weight 0
//   output  over the keys, 16 an instruction; before a step times 2^(largest before - largest so far)
//   total   of the rounded weights, as one more column of the output
//
// A step whose keys a row does not see leaves its largest score as it is, multiplies its sums by 1 and adds products with 0.
//
// Rows in shared memory are an odd number of 16-byte chunks apart, so that the eight rows that ldmatrix reads together lie
// in different banks; their last chunk is filled up with zeros where the width is no multiple of 8.
#pragma once

#include <cmath>

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

inline constexpr int kStep = 64;          // keys
inline constexpr int kQueryRows = 16;     // queries of a warp
inline constexpr int kWidestSlice = 128;  // output columns that a warp's registers hold; wider heads are cut

/// Chunks of 8 values that so many take.
__host__ __device__ constexpr int chunks_of(int values) { return (values + 7) / 8; }
/// Values from one row to the next in shared memory.
__host__ __device__ constexpr int row_stride(int values) { return (chunks_of(values) | 1) * 8; }
/// Output columns a block computes for heads of D values, and how many blocks that takes.
__host__ __device__ constexpr int slice_width(int D) { return D < kWidestSlice ? D : kWidestSlice; }
__host__ __device__ constexpr int slices_of(int D) { return (D + kWidestSlice - 1) / kWidestSlice; }

/// What a lane holds of the rows of a warp's fragments: j = 0 is row g, j = 1 row g + 8 (lane = 4g + q).
struct LaneRows {
  int g, q;
  __device__ LaneRows() : g(int(threadIdx.x % 32 / 4)), q(int(threadIdx.x % 4)) {}
  __device__ int row(int j) const { return g + 8 * j; }
};

/// Four floats from p on; with `whole` in one load, else one by one and zero from `left` on.
__device__ inline float4 load_four(const float* p, int left, bool whole) {
  if (whole && left >= 4) return *reinterpret_cast<const float4*>(p);
  return make_float4(left > 0 ? p[0] : 0, left > 1 ? p[1] : 0, left > 2 ? p[2] : 0, left > 3 ? p[3] : 0);
}

/// Rows of D floats, rounded to 16 bits, into shared memory by the whole block: row i < valid from row_at(i), then zeros up
/// to `rows`. `whole`: rows begin at multiples of 16 bytes.
template <class RowAt>
__device__ inline void load_rows(gpu::f16* to, int rows, int valid, int D, RowAt row_at, bool whole) {
  constexpr int kAtOnce = 4;  // loads of a thread on their way together
  const int fours = 2 * chunks_of(D), stride = row_stride(D), all = rows * fours;
  for (int base = int(threadIdx.x); base < all; base += kAtOnce * int(blockDim.x)) {
    float4 x[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int item = base + i * int(blockDim.x), row = item / fours, d = item % fours * 4;
      x[i] = item < all && row < valid ? load_four(row_at(row) + d, D - d, whole) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int item = base + i * int(blockDim.x), row = item / fours, d = item % fours * 4;
      if (item < all) {
        *reinterpret_cast<uint2*>(to + row * stride + d) =
            make_uint2(gpu::pack_f16(x[i].x, x[i].y), gpu::pack_f16(x[i].z, x[i].w));
      }
    }
  }
}

/// s += q · kᵀ: the warp's 16 queries (rows of row_stride(D) at q) against kPages groups of 16 keys. key_at(d, keys): the
/// address of the row of an 8x8 matrix that this lane names: dimensions d … d + 7, keys keys … keys + 7; kTransposed: its
/// rows are dimensions, else keys.
template <int kPages, bool kTransposed, class KeyAt>
__device__ inline void add_scores(float (&s)[2 * kPages][4], const gpu::f16* q, int D, KeyAt key_at) {
  const int lane = int(threadIdx.x % 32), matrix = lane / 8, chunks = chunks_of(D), stride = row_stride(D);
#pragma unroll
  for (int chunk = 0; chunk < chunks; chunk += 2) {
    const bool two = chunk + 1 < chunks;  // else the second 8 dimensions are nothing
    uint32_t a[4];
    gpu::ldmatrix_x4(a, q + lane % 16 * stride + (chunk + (two ? lane / 16 : 0)) * 8);
    if (!two) a[2] = a[3] = 0;
#pragma unroll
    for (int page = 0; page < kPages; ++page) {
      const gpu::f16* row = key_at((chunk + (two ? matrix % 2 : 0)) * 8, page * 16 + matrix / 2 * 8);
      uint32_t r[4];
      if constexpr (kTransposed) {
        gpu::ldmatrix_x4_trans(r, row);
      } else {
        gpu::ldmatrix_x4(r, row);
      }
      if (!two) r[1] = r[3] = 0;
      const uint32_t even[2] = {r[0], r[1]}, odd[2] = {r[2], r[3]};
      gpu::mma_f16(s[2 * page], a, even);
      gpu::mma_f16(s[2 * page + 1], a, odd);
    }
  }
}

/// Scores times `factor`, and -inf where the key, `first` being that of s[0]'s column 0, stands behind the row's last.
template <int kTiles>
__device__ inline void scale_and_mask(float (&s)[kTiles][4], float factor, int first, const int (&last)[2]) {
  const LaneRows lane;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int key = first + 8 * n + 2 * lane.q + j % 2;
      s[n][j] = key <= last[j / 2] ? s[n][j] * factor : -INFINITY;
    }
  }
}

/// The largest score of the lane's two rows, over the warp.
template <int kTiles>
__device__ inline void largest_scores(const float (&s)[kTiles][4], float (&largest)[2]) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float most = -INFINITY;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) most = fmaxf(most, fmaxf(s[n][2 * j], s[n][2 * j + 1]));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    largest[j] = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
  }
}

/// A row's largest score so far, in powers of two.
struct Largest {
  float value = -INFINITY;
  /// What weights of this step are relative to: the largest score, or 0 where no key was seen yet.
  __device__ float base() const { return value == -INFINITY ? 0.0f : value; }
  /// Takes in a step's largest score; returns what sums so far are to be multiplied by.
  __device__ float raise(float largest) {
    const float before = value;
    value = fmaxf(value, largest);
    return gpu::exp2_approx(before - base());
  }
};

/// Two neighbouring weights of a row, rounded.
__device__ inline uint32_t weights_of(float score, float next, float base) {
  return gpu::pack_f16(gpu::exp2_approx(score - base), gpu::exp2_approx(next - base));
}

/// o += p · v for 16 keys of the warp's 16 queries and two tiles of 8 columns from chunk `chunk` on; `two`: there is a
/// second tile. v: the first key's row, rows `stride` apart.
__device__ inline void add_values(float (&even)[4], float (&odd)[4], const uint32_t (&p)[4], const gpu::f16* v,
                                  int stride, int chunk, bool two) {
  const int lane = int(threadIdx.x % 32), matrix = lane / 8;
  uint32_t r[4];
  gpu::ldmatrix_x4_trans(r, v + (matrix % 2 * 8 + lane % 8) * stride + (chunk + (two ? matrix / 2 : 0)) * 8);
  const uint32_t first[2] = {r[0], r[1]}, second[2] = {r[2], r[3]};
  gpu::mma_f16(even, p, first);
  if (two) gpu::mma_f16(odd, p, second);
}

/// total[0], total[2] += the sums of the lane's rows of p.
__device__ inline void add_totals(float (&total)[4], const uint32_t (&p)[4]) {
  const uint32_t ones[2] = {0x3c003c00u, 0x3c003c00u};
  gpu::mma_f16(total, p, ones);
}

/// Multiplies the lane's two rows of a fragment.
__device__ inline void scale_rows(float (&o)[4], const float (&by)[2]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) o[j] = o[j] * by[j / 2];
}

/// A step of a warp that has all of its 16 queries' scores (8 kScores of them; kStep, or fewer at a context's end) and `kTiles`
/// tiles of 8 output columns, of which `tiles` are there. v: as many rows.
template <int kScores, int kTiles>
__device__ inline void step_of_warp(float (&s)[kScores][4], float factor, int first, const int (&last)[2],
                                    Largest (&largest)[2], float (&total)[4], float (&o)[kTiles][4], int tiles,
                                    const gpu::f16* v, int stride) {
  float most[2], keep[2];
  scale_and_mask(s, factor, first, last);
  largest_scores(s, most);
#pragma unroll
  for (int j = 0; j < 2; ++j) keep[j] = largest[j].raise(most[j]);
  scale_rows(total, keep);
#pragma unroll
  for (int n = 0; n < kTiles; ++n) scale_rows(o[n], keep);
  const float base[2] = {largest[0].base(), largest[1].base()};
#pragma unroll
  for (int k = 0; k < kScores / 2; ++k) {
    uint32_t p[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      p[j] = weights_of(s[2 * k + j / 2][j % 2 * 2], s[2 * k + j / 2][j % 2 * 2 + 1], base[j % 2]);
    add_totals(total, p);
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      if (n < tiles) {
        // where kTiles is odd the last pair's second tile is not there, and not touched
        add_values(o[n], o[n + 1 < kTiles ? n + 1 : n], p, v + k * 16 * stride, stride, n, n + 1 < tiles);
      }
    }
  }
}

/// The results of pieces of a context, each of which was computed alone, are put together in order.
struct Join {
  float before, next;  // what the sums so far and the next piece's are multiplied by
  /// The largest scores of what is there, which becomes that of both, and of the next piece.
  __device__ Join(float& largest, float next_largest) {
    const float most = fmaxf(largest, next_largest);
    before = gpu::exp2_approx(largest - most);
    next = gpu::exp2_approx(next_largest - most);
    largest = most;
  }
  __device__ float operator()(float sum, float next_sum) const { return fmaf(sum, before, next_sum * next); }
};

/// Two neighbouring values of a row, `at` even, of which `width` are to be written; in one store where all rows are even.
__device__ inline void store_two(float* row, int at, int width, float x, float y) {
  if (width % 2 == 0) {
    if (at < width) *reinterpret_cast<float2*>(row + at) = make_float2(x, y);
  } else {
    if (at < width) row[at] = x;
    if (at + 1 < width) row[at + 1] = y;
  }
}

/// Four values times `by`, `at` a multiple of 4; in one store where all rows are.
__device__ inline void store_four(float* row, int at, int width, const float4& x, float by) {
  if (width % 4 == 0) {
    if (at < width) *reinterpret_cast<float4*>(row + at) = make_float4(x.x * by, x.y * by, x.z * by, x.w * by);
  } else {
    store_two(row, at, width, x.x * by, x.y * by);
    store_two(row, at + 2, width, x.z * by, x.w * by);
  }
}

}  // namespace minigpt4::cuda
