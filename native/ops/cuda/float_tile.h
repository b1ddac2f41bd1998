// Products of float32 matrices by fused multiply-adds: y[m, n] is one chain over k from first to last, whatever the tile, so
// a row's bits do not depend on how many rows there are, and a sum over a batch may go on where its first part ended.
//
// A block of 128 threads computes 64 x 128 of y, a thread 8 x 8 of it in four quarters (64 sums, 16 operands: 16 bytes read
// from shared memory for every 16 multiply-adds); 16 k at a time lie in shared memory, k by k, doubly buffered, the next ones
// under way in registers. Global loads are 4 bytes a lane, because rows of the file may be of any width: 32 consecutive
// values, or, where k is the fast index, 8 of each of four rows; rows of 68 and 132 floats keep both stores and 16-byte loads
// free of bank conflicts.
#pragma once

#include <cstdint>

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

/// Element (i, k) is data[i · stride + k] if k is fast, else data[k · stride + i].
struct FloatOperand {
  const float* data;
  int64_t stride;
};

enum class FloatSums {
  assign,  // y = sum + bias
  add,     // y = (sum + bias) + y
  extend,  // y's value is what the chain begins with
};

struct FloatProduct {
  FloatOperand m_side, n_side;
  int m, n, k;
  float* y;           // [m, n]
  const float* bias;  // [n] or null
  FloatSums sums;
  bool aligned;  // rows of y, and bias, begin at multiples of 16 bytes
};

inline constexpr int kFloatM = 64, kFloatN = 128, kFloatK = 16, kFloatThreads = 128;
inline dim3 float_grid(int64_t m, int64_t n) {
  // the second number is limited to 65535, the first is not
  const int64_t across = (n + kFloatN - 1) / kFloatN, down = (m + kFloatM - 1) / kFloatM;
  return dim3(unsigned(across * down));
}

/// A thread's share of one operand's `size` rows of kFloatK values, on their way to shared memory. Its values are `step` rows
/// (k fast) or k apart.
template <int size, bool k_fast>
class FloatPieces {
 public:
  static constexpr int stride = size + 4;  // of a k in shared memory

  __device__ FloatPieces(const FloatOperand& from, int first, int rows, int count) : count_(count) {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    row_ = k_fast ? warp / (kFloatK / 8) * 4 + lane / 8 : warp % (size / 32) * 32 + lane;
    k_ = k_fast ? warp % (kFloatK / 8) * 8 + lane % 8 : warp / (size / 32);
    rows_left_ = rows - first - row_;
    at_ = from.data + (k_fast ? (first + row_) * from.stride + k_ : k_ * from.stride + first + row_);
    apart_ = step * from.stride;
    next_ = k_fast ? kFloatK : kFloatK * from.stride;
  }
  /// Loads the next kFloatK; what does not exist is 0.
  __device__ void load() {
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const bool there = k_fast ? i * step < rows_left_ && k_ < count_ : rows_left_ > 0 && k_ + i * step < count_;
      values_[i] = there ? __ldg(at_ + i * apart_) : 0.0f;
    }
    at_ += next_;
    count_ -= kFloatK;
  }
  __device__ void store(float* tile) const {
    float* const to = tile + k_ * stride + row_;
#pragma unroll
    for (int i = 0; i < loads; ++i) to[i * step * (k_fast ? 1 : stride)] = values_[i];
  }

 private:
  static constexpr int warps = kFloatThreads / 32, loads = size * kFloatK / kFloatThreads;
  static constexpr int step = k_fast ? 4 * warps / (kFloatK / 8) : warps / (size / 32);
  static_assert(warps % (kFloatK / 8) == 0 && warps % (size / 32) == 0);
  const float* at_;
  int64_t apart_, next_;
  int row_, k_, rows_left_, count_;
  float values_[loads];
};

/// Reads (or writes) four neighbours of a row, as far as they exist.
__device__ inline void read_four(float (&v)[4], const float* row, int column, const FloatProduct& p) {
  if (p.aligned && column < p.n) {
    const float4 four = *reinterpret_cast<const float4*>(row + column);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = column + i < p.n ? row[column + i] : 0.0f;
}
__device__ inline void write_four(const float (&v)[4], float* row, int column, const FloatProduct& p) {
  if (p.aligned) {
    if (column < p.n) *reinterpret_cast<float4*>(row + column) = make_float4(v[0], v[1], v[2], v[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (column + i < p.n) row[column + i] = v[i];
  }
}

template <bool m_k_fast, bool n_k_fast>
__global__ void __launch_bounds__(kFloatThreads, 3) float_product(const FloatProduct p) {
  using Left = FloatPieces<kFloatM, m_k_fast>;
  using Right = FloatPieces<kFloatN, n_k_fast>;
  GPU_SHARED(float, left_tiles, [2][kFloatK * Left::stride]);
  GPU_SHARED(float, right_tiles, [2][kFloatK * Right::stride]);
  const int across = (p.n + kFloatN - 1) / kFloatN;
  const int first_m = int(blockIdx.x) / across * kFloatM, first_n = int(blockIdx.x) % across * kFloatN;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int m0 = warp / 2 * 32 + lane / 8 * 4, n0 = warp % 2 * 64 + lane % 8 * 4;  // and 16, 32 further

  float sums[2][4][2][4] = {};  // [m half][m][n half][n]
  if (p.sums == FloatSums::extend) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = first_m + m0 + i / 4 * 16 + i % 4;
      if (row >= p.m) continue;
#pragma unroll
      for (int h = 0; h < 2; ++h) read_four(sums[i / 4][i % 4][h], p.y + int64_t(row) * p.n, first_n + n0 + 32 * h, p);
    }
  }

  const auto add = [&](const float* a, const float* b) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 m = *reinterpret_cast<const float4*>(a + 16 * i);
      const float left[4] = {m.x, m.y, m.z, m.w};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float4 n = *reinterpret_cast<const float4*>(b + 32 * h);
        const float right[4] = {n.x, n.y, n.z, n.w};
#pragma unroll
        for (int u = 0; u < 4; ++u) {
#pragma unroll
          for (int v = 0; v < 4; ++v) sums[i][u][h][v] = fmaf(left[u], right[v], sums[i][u][h][v]);
        }
      }
    }
  };

  Left left(p.m_side, first_m, p.m, p.k);
  Right right(p.n_side, first_n, p.n, p.k);
  left.load();
  right.load();
  for (int k0 = 0, buffer = 0; k0 < p.k; k0 += kFloatK, buffer ^= 1) {
    left.store(left_tiles[buffer]);
    right.store(right_tiles[buffer]);
    __syncthreads();
    if (k0 + kFloatK < p.k) {
      left.load();
      right.load();
    }
    const float* const a = left_tiles[buffer] + m0;
    const float* const b = right_tiles[buffer] + n0;
    if (k0 + kFloatK <= p.k) {
#pragma unroll 2  // whole, it spills for 12.0
      for (int i = 0; i < kFloatK; ++i) add(a + i * Left::stride, b + i * Right::stride);
    } else {  // no links of zeros: they would turn a sum of -0 into 0
      for (int i = 0; i < p.k - k0; ++i) add(a + i * Left::stride, b + i * Right::stride);
    }
  }

#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = first_m + m0 + i / 4 * 16 + i % 4;
    if (row >= p.m) continue;
    float* const to = p.y + int64_t(row) * p.n;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int column = first_n + n0 + 32 * h;
      float(&v)[4] = sums[i / 4][i % 4][h];
      float other[4];
      if (p.bias) {
        read_four(other, p.bias, column, p);
#pragma unroll
        for (int u = 0; u < 4; ++u) v[u] += other[u];
      }
      if (p.sums == FloatSums::add) {
        read_four(other, to, column, p);
#pragma unroll
        for (int u = 0; u < 4; ++u) v[u] += other[u];
      }
      write_four(v, to, column, p);
    }
  }
}

inline bool rows_aligned(const void* y, const void* bias, int64_t n) {
  return (reinterpret_cast<uintptr_t>(y) | reinterpret_cast<uintptr_t>(bias)) % 16 == 0 && n % 4 == 0;
}

}  // namespace minigpt4::cuda
