// What the kernels of attend_dx share: tiles of queries and keys in float32 in shared memory, and the three kinds of products
// made of them. 128 threads; heads up to 128 wide take tiles of 32 rows, wider ones (up to 256) tiles of 16.
//
//   scores      q · kᵀ, dy · vᵀ: a thread has kRows queries (tile / 8) by kKeys keys (tile / 16), sums over the width
//   weighted    pᵀ · dy, dsᵀ · q, ds · k: a thread has 4 rows by 2 times 4 columns, sums over a tile's rows, in order
#pragma once

#include "ops/cuda/attention_steps.h"
#include "ops/cuda/gpu.h"
#include "ops/cuda/ragged.h"
#include "ops/ops.h"

namespace minigpt4::cuda {

inline constexpr int kGradientThreads = 128;

struct AttentionGradientWork {
  Ops::AttentionGradient of;
  float factor = 0;    // scale · log2 e
  bool whole = false;  // all rows of all inputs begin at multiples of 16 bytes
};
using GradientKernel = void (*)(AttentionGradientWork);

/// Launched one after the other, with as many blocks as the device runs at once: blocks take one tile after the other, since
/// the host does not know how many there are. `statistics` leaves, for every query and head, the two numbers that describe
/// its softmax and its gradient in dq[0] and dq[1] of the head, where `keys` (dk, dv) and `queries` (dq) find them; `queries`
/// then writes dq over them.
struct GradientKernels {
  GradientKernel statistics, keys, queries;
  size_t shared_statistics, shared_keys, shared_queries;
};
template <int kTile>
struct GradientTile {
  static constexpr int kRows = kTile / 8, kKeys = kTile / 16;   // of a thread's scores
  static constexpr int kAcross = kGradientThreads * 4 / kTile;  // threads side by side in a weighted sum
  static constexpr int kStride = kTile + 4;                     // of weights: rows by fours, in different banks

  /// Floats of a row of D in shared memory: 16 rows' same four lie in different banks, eight at a time.
  __host__ __device__ static constexpr int row_floats(int D) { return (D + 3) / 4 * 4 + ((D + 3) / 4 % 2 ? 0 : 4); }
  __host__ __device__ static constexpr int rows_floats(int D) { return kTile * row_floats(D); }
  static constexpr int kWeights = kTile * kStride;
};

/// Where a sequence's rows lie, and its tile of them.
struct GradientPlace {
  int queries, keys, before;  // of the sequence; keys that stand before its first query
  int64_t first_query, first_key;
  __device__ GradientPlace(const Ops::AttentionGradient& a, int b)
      : queries(rows_of(a.q_offsets, b)),
        keys(rows_of(a.k_offsets, b)),
        before(keys - queries),
        first_query(a.q_offsets[b]),
        first_key(a.k_offsets[b]) {}
};

/// kTile rows of D floats, `stride` apart in global memory, of which `count` are there; zeros behind them and behind D.
template <int kTile>
__device__ inline void load_tile(float* to, const float* from, int64_t stride, int count, int D, bool whole) {
  const int fours = (D + 3) / 4, floats = GradientTile<kTile>::row_floats(D);
  for (int item = int(threadIdx.x); item < kTile * fours; item += kGradientThreads) {
    const int row = item / fours, d = item % fours * 4;
    float* const there = to + row * floats + d;
    const float* const here = from + row * stride + d;
    if (whole) {
      gpu::cp_async16(there, row < count ? here : from, row < count);
    } else {
      *reinterpret_cast<float4*>(there) = load_four(here, row < count ? D - d : 0, false);
    }
  }
}
/// Ends the loads of a tile: all threads see it.
__device__ inline void tiles_are_there() {
  gpu::cp_commit();
  gpu::cp_wait<0>();
  __syncthreads();
}

/// s[i][j] = a's row (threadIdx.x / 16 · kRows + i) · b's row (threadIdx.x % 16 + 16 j).
template <int kTile>
__device__ inline void scores_of(float (&s)[GradientTile<kTile>::kRows][GradientTile<kTile>::kKeys], const float* a,
                                 const float* b, int D) {
  using Tile = GradientTile<kTile>;
  const int floats = Tile::row_floats(D), fours = (D + 3) / 4;
  const float* const rows = a + int(threadIdx.x) / 16 * Tile::kRows * floats;
  const float* const keys = b + int(threadIdx.x) % 16 * floats;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kKeys; ++j) s[i][j] = 0;
  }
  for (int four = 0; four < fours; ++four) {
    float4 x[Tile::kKeys];
#pragma unroll
    for (int j = 0; j < Tile::kKeys; ++j) x[j] = *reinterpret_cast<const float4*>(keys + 16 * j * floats + four * 4);
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
      const float4 y = *reinterpret_cast<const float4*>(rows + i * floats + four * 4);
#pragma unroll
      for (int j = 0; j < Tile::kKeys; ++j) {
        s[i][j] = fmaf(y.x, x[j].x, s[i][j]);
        s[i][j] = fmaf(y.y, x[j].y, s[i][j]);
        s[i][j] = fmaf(y.z, x[j].z, s[i][j]);
        s[i][j] = fmaf(y.w, x[j].w, s[i][j]);
      }
    }
  }
}

/// A thread's part of a tile's sums: 4 rows from row() on, fours of columns at column(0) and column(1).
template <int kTile>
struct WeightedSums {
  using Tile = GradientTile<kTile>;
  float4 of[4][2] = {};

  __device__ static int row() { return int(threadIdx.x) / Tile::kAcross * 4; }
  __device__ static int column(int c) { return (c * Tile::kAcross + int(threadIdx.x) % Tile::kAcross) * 4; }

  /// += Σ weights[n][row] · rows[n][column], n < kTile.
  __device__ void add(const float* weights, const float* rows, int D) {
    const int floats = Tile::row_floats(D);
#pragma unroll 4
    for (int n = 0; n < kTile; ++n) {
      const float4 w = *reinterpret_cast<const float4*>(weights + n * Tile::kStride + row());
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        if (column(c) >= D) continue;
        const float4 x = *reinterpret_cast<const float4*>(rows + n * floats + column(c));
        multiply_add(of[0][c], w.x, x);
        multiply_add(of[1][c], w.y, x);
        multiply_add(of[2][c], w.z, x);
        multiply_add(of[3][c], w.w, x);
      }
    }
  }
  /// Writes times `by` to rows `stride` apart, `count` of which are there.
  __device__ void store(float* to, int64_t stride, int count, int D, float by) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row() + i >= count) continue;
#pragma unroll
      for (int c = 0; c < 2; ++c) store_four(to + (row() + i) * stride, column(c), D, of[i][c], by);
    }
  }

 private:
  __device__ static void multiply_add(float4& sum, float w, const float4& x) {
    sum = make_float4(fmaf(w, x.x, sum.x), fmaf(w, x.y, sum.y), fmaf(w, x.z, sum.z), fmaf(w, x.w, sum.w));
  }
};

/// Of the 16 lanes that share a thread's rows.
__device__ inline float sum_of_lanes(float x) {
#pragma unroll
  for (int step = 1; step < 16; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float most_of_lanes(float x) {
#pragma unroll
  for (int step = 1; step < 16; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

}  // namespace minigpt4::cuda
