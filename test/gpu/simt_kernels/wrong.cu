// Small kernels that each touch memory in one way they must not, at the line marked "defect:".
#include "simt_kernels.h"

namespace planted {

__global__ void add_one(float* y, const float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    y[i] = x[i] + 1;  // defect: input
  }
}

__global__ void add_one_to_bytes(uint8_t* y, const uint8_t* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = uint8_t(x[i] + 1);
}

__global__ void load_float4(float* y, const float* x, int shift) {
  const float4 four = *reinterpret_cast<const float4*>(x + shift);  // defect: cast
  y[threadIdx.x] = four.x + four.y + four.z + four.w;
}
__global__ void load_ldg128(float* y, const float* x, int shift) {
  const uint4 four = minigpt4::gpu::ldg128(x + shift);  // defect: ldg128
  y[threadIdx.x] = float(four.x);
}
__global__ void load_ldg64(float* y, const float* x, int shift) {
  const uint2 two = minigpt4::gpu::ldg64(x + shift);  // defect: ldg64
  y[threadIdx.x] = float(two.x);
}
__global__ void load_cp_async(float* y, const float* x, int shift) {
  GPU_SHARED(float, tile, [4]);
  minigpt4::gpu::cp_async16(tile, x + shift);  // defect: cp_async
  minigpt4::gpu::cp_commit();
  minigpt4::gpu::cp_wait<0>();
  y[threadIdx.x] = tile[0];
}

__global__ void foreign_local(float* y) {
  GPU_SHARED(float*, address, [1]);
  float local = 3;
  if (threadIdx.x == 0) address[0] = &local;
  __syncthreads();
  y[threadIdx.x] = *address[0];  // defect: local
  __syncthreads();
}

__global__ void part_overrun(float* y, int count) {
  minigpt4::gpu::DynamicShared dynamic;
  float* first = dynamic.take<float>(count);
  float* second = dynamic.take<float>(count);
  second[threadIdx.x] = 0;
  __syncthreads();
  first[threadIdx.x + 1] = 1;  // defect: part
  __syncthreads();
  y[threadIdx.x] = second[threadIdx.x];
}

__global__ void plain_beside_atomic(int* counter, int* y) {
  atomicAdd(counter, 1);  // met by: atomic
  if (threadIdx.x == blockDim.x - 1) {
    y[blockIdx.x] = *counter;  // defect: atomic
  }
}

__global__ void partial_syncwarp(int* y, int reader) {
  GPU_SHARED(int, cell, [1]);
  const int lane = threadIdx.x;
  if (lane == 0) cell[0] = 7;
  if (lane < 2) __syncwarp(0x3);
  if (lane == reader) {
    y[0] = cell[0];  // defect: partial
  }
}

__global__ void syncwarp_of_each(int* y) {
  GPU_SHARED(int, cell, [1]);
  if (threadIdx.x == 0) {
    cell[0] = 7;  // met by: warps
  }
  __syncwarp();
  if (threadIdx.x == 32) {
    y[0] = cell[0];  // defect: warps
  }
}

__global__ void unshared_copy(float* y, const float* x) {
  GPU_SHARED(float, tile, [4]);
  if (threadIdx.x == 0) {
    minigpt4::gpu::cp_async16(tile, x);  // met by: unshared
    minigpt4::gpu::cp_commit();
  }
  __syncthreads();
  if (threadIdx.x == 0) minigpt4::gpu::cp_wait<0>();
  if (threadIdx.x == 1) {
    y[0] = tile[0];  // defect: unshared
  }
}

__global__ void write_after_reads(float* y) {
  GPU_SHARED(float, cell, [1]);
  if (threadIdx.x == 0) cell[0] = 1;
  __syncthreads();
  const float seen = cell[0];  // met by: readers
  if (threadIdx.x == blockDim.x - 1) {
    cell[0] = seen + 1;  // defect: readers
  }
  y[threadIdx.x] = seen;
}

template <Early early>
__global__ void touches_early(int* y, const int* x) {
  GPU_SHARED(int, tile, [32]);
  GPU_SHARED(int, copied, [4]);
  const int me = int(threadIdx.x);
  tile[me] = 1;
  int found = 0;
  if (early == Early::read) {
    found = x[me];  // defect: early_read
  }
  if (early == Early::ldg) {
    found = int(minigpt4::gpu::ldg32(x + me));  // defect: early_ldg
  }
  if (early == Early::copy && me == 0) {
    minigpt4::gpu::cp_async16(copied, x);  // defect: early_copy
    minigpt4::gpu::cp_commit();
    minigpt4::gpu::cp_wait<0>();
  }
  if (early == Early::write) {
    y[me] = 1;  // defect: early_write
  }
  if (early == Early::atomic) {
    atomicAdd(&y[me], 1);  // defect: early_atomic
  }
  minigpt4::gpu::wait_for_previous();
  y[me] = found + tile[me] + x[me];
}
template __global__ void touches_early<Early::nothing>(int*, const int*);
template __global__ void touches_early<Early::read>(int*, const int*);
template __global__ void touches_early<Early::ldg>(int*, const int*);
template __global__ void touches_early<Early::copy>(int*, const int*);
template __global__ void touches_early<Early::write>(int*, const int*);
template __global__ void touches_early<Early::atomic>(int*, const int*);

}  // namespace planted
