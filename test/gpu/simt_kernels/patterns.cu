// Kernels whose memory traffic is known on paper. The lines that a test asks for carry a comment "line: name".
#include "simt_kernels.h"

namespace pattern {

template <int padding>
__global__ void tile_rows(uint32_t* y) {
  GPU_SHARED(uint16_t, tile, [16][32 + padding]);
  const int lane = threadIdx.x;
  for (int i = lane; i < 16 * (32 + padding); i += 32) tile[0][i] = uint16_t(i);
  __syncwarp();
  uint32_t r[4];
  gpu::ldmatrix_x4(r, &tile[lane % 16][lane / 16 * 8]);  // line: ldmatrix
  y[lane] = r[0] + r[1] + r[2] + r[3];
}

__global__ void copy4(float4* y, const float4* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}
__global__ void copy_ldg(uint4* y, const uint4* x) {
  y[threadIdx.x] = gpu::ldg128(x + threadIdx.x);  // line: ldg128
}

__global__ void blocks18(uint32_t* y, const uint8_t* x) {
  const int i = threadIdx.x;
  const uint16_t* block = reinterpret_cast<const uint16_t*>(x + i / 4 * 18);
  const uint32_t scale = block[0];             // line: scale
  const uint32_t low = block[1 + i % 4 * 2];   // line: low
  const uint32_t high = block[2 + i % 4 * 2];  // line: high
  y[i] = scale + (low | high << 16);
}

__global__ void column(float* y, const float* x, int width, int column) {
  y[threadIdx.x] = x[threadIdx.x * width + column];  // line: column
}

template <int padding>
__global__ void transpose(float* y, const float* x) {
  GPU_SHARED(float, tile, [32][32 + padding]);
  const int lane = threadIdx.x;
  for (int row = 0; row < 32; ++row) tile[row][lane] = x[row * 32 + lane];
  __syncwarp();
  for (int row = 0; row < 32; ++row) y[row * 32 + lane] = tile[lane][row];  // line: turned
}

__global__ void wide(float* y) {
  GPU_SHARED(float4, tile, [64]);
  const int lane = threadIdx.x;
  tile[lane] = make_float4(1, 2, 3, 4);                            // line: wide4
  reinterpret_cast<float2*>(&tile[32])[lane] = make_float2(5, 6);  // line: wide2
  __syncwarp();
  y[lane] = tile[lane % 8].x;  // line: broadcast
}

__global__ void ragged(float* y, const float* x) {
  float sum = 0;
  for (int i = 0; i <= int(threadIdx.x); ++i) sum += x[i * 32 + threadIdx.x];  // line: ragged
  y[threadIdx.x] = sum;
}

template __global__ void tile_rows<0>(uint32_t* y);
template __global__ void tile_rows<8>(uint32_t* y);
template __global__ void transpose<0>(float* y, const float* x);
template __global__ void transpose<1>(float* y, const float* x);

}  // namespace pattern
