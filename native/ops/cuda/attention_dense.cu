// attend: full attention of all queries to all keys, for the ViT and the Q-Former. A block is up to six warps of 16 queries
// of one head (96 queries: the ViT's 257 rows are 17 such sixteens, three blocks with one place left over); keys and values
// go by in steps of 64, rounded to 16 bits on the way into shared memory, where all warps use them. While one block waits
// for its loads, another of the same multiprocessor computes.
//
// Shared memory: queries [16 · warps][D], keys [64][D], values [64][width]: 39 KB at head width 88.
#include <algorithm>
#include <numbers>

#include "core/error.h"
#include "ops/cuda/attention_steps.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {

namespace {

constexpr int kMostWarps = 6;
constexpr int kWidestHead = 256;

struct DenseAttention {
  Ops::Attention of;
  float factor = 0;    // scale · log2 e
  bool whole = false;  // heads begin at multiples of 16 bytes
};

/// This lane's row of the 8x8 matrix of keys: keys key … key + 7 (rows), dimensions d … d + 7.
struct DenseKeys {
  const gpu::f16* keys;
  int stride;
  __device__ const gpu::f16* operator()(int d, int key) const {
    return keys + (key + int(threadIdx.x % 8)) * stride + d;
  }
};

/// kWidth: the head's width, 0 for one known at run time. Grid: blocks of queries, H · slices, B.
template <int kWidth>
__global__ void __launch_bounds__(32 * kMostWarps, kWidth ? 2 : 1) attend_dense_kernel(DenseAttention all) {
  constexpr int kTiles = chunks_of(slice_width(kWidth ? kWidth : kWidestSlice));
  const Ops::Attention& a = all.of;
  const int D = kWidth ? kWidth : a.D, slices = slices_of(D);
  const int head = int(blockIdx.y) / slices, column = int(blockIdx.y) % slices * kWidestSlice;
  const int width = kWidth ? slice_width(kWidth) : min(D - column, kWidestSlice);
  const int rows = int(blockDim.x) / 32 * kQueryRows, first_row = int(blockIdx.x) * rows;
  const int count = min(rows, a.Tq - first_row);
  const int64_t b = blockIdx.z;
  const float* const q_from = a.q + (b * a.Tq + first_row) * a.q_stride + head * D;
  const float* const k_from = a.k + b * a.Tk * a.k_stride + head * D;
  const float* const v_from = a.v + b * a.Tk * a.v_stride + head * D + column;

  gpu::DynamicShared shared;
  gpu::f16* const q = shared.take<gpu::f16>(rows * row_stride(D));
  gpu::f16* const k = shared.take<gpu::f16>(kStep * row_stride(D));
  gpu::f16* const v = shared.take<gpu::f16>(kStep * row_stride(slice_width(D)));
  load_rows(q, rows, count, D, [&](int i) { return q_from + i * a.q_stride; }, all.whole);

  const LaneRows lane;
  const int warp_row = int(threadIdx.x / 32) * kQueryRows;
  const int last[2] = {a.Tk - 1, a.Tk - 1};
  Largest largest[2];
  float total[4] = {}, o[kTiles][4] = {};
#pragma unroll 1
  for (int from = 0; from < a.Tk; from += kStep) {
    const int keys = min(kStep, a.Tk - from);
    __syncthreads();
    const bool whole_step = keys > 16;  // the ViT's 257 keys end with a step of one
    const int loaded = whole_step ? kStep : 16;
    load_rows(k, loaded, keys, D, [&](int i) { return k_from + (from + i) * a.k_stride; }, all.whole);
    load_rows(v, loaded, keys, width, [&](int i) { return v_from + (from + i) * a.v_stride; }, all.whole);
    __syncthreads();
    if (warp_row >= count) continue;
    const auto compute = [&](auto& s) {
      add_scores<sizeof(s) / sizeof(s[0]) / 2, false>(s, q + warp_row * row_stride(D), D, DenseKeys{k, row_stride(D)});
      step_of_warp(s, all.factor, from, last, largest, total, o, chunks_of(width), v, row_stride(width));
    };
    if (whole_step) {
      float s[kStep / 8][4] = {};
      compute(s);
    } else {
      float s[2][4] = {};
      compute(s);
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int i = warp_row + lane.row(j);
    if (i >= count) continue;
    float* const y = a.y + ((b * a.Tq + first_row + i) * a.H + head) * D + column;
    const float by = 1.0f / total[2 * j];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) store_two(y, 8 * n + lane.q * 2, width, o[n][2 * j] * by, o[n][2 * j + 1] * by);
  }
}

auto dense_kernel(int D) {
  switch (D) {
    case 64:
      return attend_dense_kernel<64>;
    case 88:
      return attend_dense_kernel<88>;
    case 128:
      return attend_dense_kernel<128>;
    default:
      return attend_dense_kernel<0>;
  }
}

}  // namespace

void CudaOps::attend(const Attention& a) {
  if (a.B == 0 || a.Tq == 0) return;
  if (a.D > kWidestHead) {
    fail(code::unsupported, "attention heads on a CUDA device are at most ", kWidestHead, " wide, found ", a.D);
  }
  // wide heads take fewer, so that shared memory is enough on the smallest devices (99 KB a block)
  const int most_warps = a.D > kWidestSlice ? 4 : kMostWarps;
  const int sixteens = (a.Tq + kQueryRows - 1) / kQueryRows, blocks = (sixteens + most_warps - 1) / most_warps;
  const int warps = (sixteens + blocks - 1) / blocks;  // as even as can be
  const DenseAttention all{
      a, float(double(a.scale) * std::numbers::log2e),
      a.D % 4 == 0 && a.q_stride % 4 == 0 && a.k_stride % 4 == 0 && a.v_stride % 4 == 0 && aligned16({a.q, a.k, a.v})};
  const size_t shared = gpu::shared_bytes<gpu::f16>(size_t(warps * kQueryRows * row_stride(a.D))) +
                        gpu::shared_bytes<gpu::f16>(size_t(kStep * row_stride(a.D))) +
                        gpu::shared_bytes<gpu::f16>(size_t(kStep * row_stride(slice_width(a.D))));
  run("attend", dense_kernel(a.D), dim3(unsigned(blocks), unsigned(a.H * slices_of(a.D)), unsigned(a.B)),
      dim3(unsigned(32 * warps)), shared, all);
}

}  // namespace minigpt4::cuda
