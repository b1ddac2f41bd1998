// Four kernels without a defect, in the ways the project's kernels work: barriers, double-buffered asynchronous copies with
// matrix instructions, shuffles, atomics. With a defect chosen, the same kernels without the one thing that makes them right:
// what the checker must find, at the lines marked "defect:" and "met by:".
#include "simt_kernels.h"

namespace planted {

template <Defect defect>
__global__ void row_sums(float* y, const float* x, int rows, int width) {
  GPU_SHARED(float, partial, [256]);
  const int row = blockIdx.x, tid = threadIdx.x;
  if (defect == Defect::row_overrun ? row > rows : row >= rows) return;
  float sum = 0;
  for (int i = tid; i < width; i += 256) {
    sum += x[size_t(row) * width + i];  // defect: row_overrun
  }
  partial[tid] = sum;  // met by: reduction_barrier
  if constexpr (defect != Defect::reduction_barrier) __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (tid < half) {
      const int from = defect == Defect::shared_overrun ? tid + half + 1 : tid + half;
      const float other = partial[from];  // defect: reduction_barrier shared_overrun
      partial[tid] += other;
      if constexpr (defect == Defect::divergent_barrier) {
        __syncthreads();  // defect: divergent_barrier
      }
    }
    if constexpr (defect != Defect::divergent_barrier) __syncthreads();
  }
  if (tid == 0) y[row] = partial[0];
}

template <Defect defect>
__global__ void matmul(float* y, const gpu::bf16* a, const gpu::bf16* b, int N, int K) {
  GPU_SHARED(gpu::bf16, tile_a, [2][32][24]);  // 8 columns of padding: ldmatrix without bank conflicts
  GPU_SHARED(gpu::bf16, tile_b, [2][32][24]);
  const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  const int row0 = blockIdx.y * 32, column0 = blockIdx.x * 32, steps = K / 16;
  const auto fetch = [&](int step) {
    const int row = tid % 64 / 2, column = tid % 2 * 8;
    if (tid < 64) {
      gpu::cp_async16(&tile_a[step % 2][row][column],  // defect: buffer_reuse
                      a + size_t(row0 + row) * K + step * 16 + column);
    } else {
      gpu::cp_async16(&tile_b[step % 2][row][column],  // met by: early_use
                      b + size_t(column0 + row) * K + step * 16 + column);
    }
  };
  float sums[2][4] = {};
  fetch(0);
  gpu::cp_commit();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) fetch(step + 1);
    gpu::cp_commit();
    gpu::cp_wait<defect == Defect::early_use ? 2 : 1>();
    __syncthreads();
    uint32_t fa[4], fb[4];
    const int m = warp / 2 * 16, n = warp % 2 * 16;
    gpu::ldmatrix_x4(fa, &tile_a[step % 2][m + lane % 16][lane / 16 * 8]);                    // met by: buffer_reuse
    gpu::ldmatrix_x4(fb, &tile_b[step % 2][n + lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8]);  // defect: early_use
    for (int half = 0; half < 2; ++half) {
      const uint32_t low = fb[2 * half], high = fb[2 * half + 1];
      const uint32_t fragment[2] = {defect == Defect::swapped_fragment ? high : low,
                                    defect == Defect::swapped_fragment ? low : high};
      gpu::mma_bf16(sums[half], fa, fragment);
    }
    if constexpr (defect != Defect::buffer_reuse) __syncthreads();
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + warp / 2 * 16 + lane / 4 + 8 * (i / 2);
      const int column = column0 + warp % 2 * 16 + half * 8 + lane % 4 * 2 + i % 2;
      y[size_t(row) * N + column] = sums[half][i];
    }
  }
}

template <Defect defect>
__global__ void softmax(float* y, const float* x, int rows, int width) {
  GPU_SHARED(float, total, [8]);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + warp;
  if (row >= rows) return;
  const float* from = x + size_t(row) * width;
  float top = -INFINITY;
  for (int i = lane; i < width; i += 32) top = fmaxf(top, from[i]);
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, step));
  float sum = 0;
  for (int i = lane; i < width; i += 32) sum += expf(from[i] - top);
  if constexpr (defect == Defect::half_warp_shuffle) {
    if (lane < 16) {
      sum += __shfl_xor_sync(0xffffffff, sum, 1);  // defect: half_warp_shuffle
    }
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
  if (lane == 0) {
    total[warp] = sum;  // met by: missing_syncwarp
  }
  if constexpr (defect != Defect::missing_syncwarp) __syncwarp();
  const float scale = 1 / total[warp];  // defect: missing_syncwarp
  for (int i = lane; i < width; i += 32) y[size_t(row) * width + i] = expf(from[i] - top) * scale;
}

template <Defect defect>
__global__ void histogram(int* counts, const int* x, int n, int bins) {
  GPU_SHARED(int, local, [64]);
  for (int i = threadIdx.x; i < bins; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[x[i]], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += blockDim.x) {
    if constexpr (defect == Defect::lost_update) {
      counts[i] += local[i];  // defect: lost_update
    } else {
      atomicAdd(&counts[i], local[i]);
    }
  }
}

template __global__ void row_sums<Defect::none>(float* y, const float* x, int rows, int width);
template __global__ void row_sums<Defect::reduction_barrier>(float* y, const float* x, int rows, int width);
template __global__ void row_sums<Defect::divergent_barrier>(float* y, const float* x, int rows, int width);
template __global__ void row_sums<Defect::shared_overrun>(float* y, const float* x, int rows, int width);
template __global__ void row_sums<Defect::row_overrun>(float* y, const float* x, int rows, int width);
template __global__ void matmul<Defect::none>(float* y, const gpu::bf16* a, const gpu::bf16* b, int N, int K);
template __global__ void matmul<Defect::buffer_reuse>(float* y, const gpu::bf16* a, const gpu::bf16* b, int N, int K);
template __global__ void matmul<Defect::early_use>(float* y, const gpu::bf16* a, const gpu::bf16* b, int N, int K);
template __global__ void matmul<Defect::swapped_fragment>(float* y, const gpu::bf16* a, const gpu::bf16* b, int N,
                                                          int K);
template __global__ void softmax<Defect::none>(float* y, const float* x, int rows, int width);
template __global__ void softmax<Defect::half_warp_shuffle>(float* y, const float* x, int rows, int width);
template __global__ void softmax<Defect::missing_syncwarp>(float* y, const float* x, int rows, int width);
template __global__ void histogram<Defect::none>(int* counts, const int* x, int n, int bins);
template __global__ void histogram<Defect::lost_update>(int* counts, const int* x, int n, int bins);

}  // namespace planted
