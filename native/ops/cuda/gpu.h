// What every kernel file includes, and the only file that knows which compiler reads it: nvcc for a GPU, or a plain C++
// compiler, which runs the same source on the CPU (simt/). Kernels use CUDA's own words (__global__, threadIdx,
// __syncthreads, __shfl_xor_sync, …) and, for what only nvcc can parse or what is one machine instruction, the names that
// gpu_nvcc.h documents. A test forbids raw __shared__, <<<, asm, __constant__ and the like everywhere else.
#pragma once

#ifdef __CUDACC__
#include "ops/cuda/gpu_nvcc.h"
#else
#include "simt/gpu_simt.h"
#endif
#include "ops/cuda/shared_allowance.h"
