// Kernels for the tests of the emulator's checker: what each does is said here, how, and where it goes wrong, in its .cu
// file, which is compiled with the checker's flags. The tests launch them from files that are not.
#pragma once

#include "ops/cuda/gpu.h"

// ---- correct.cu, right where the defect is none

namespace planted {

namespace gpu = minigpt4::gpu;

enum class Defect {
  none,
  reduction_barrier,  // no barrier between the halves of a reduction
  divergent_barrier,  // a barrier that half of the block never reaches
  buffer_reuse,       // no barrier before a buffer is filled again
  early_use,          // waits for one group of copies too few
  swapped_fragment,   // the two registers of a B fragment swapped
  lost_update,        // += where blocks need an atomic
  shared_overrun,     // one element behind a shared array
  row_overrun,        // a row behind the last
  half_warp_shuffle,  // a full mask where half a warp runs
  missing_syncwarp,   // lanes of a warp read what another lane wrote
};

/// Sums x[rows, width] by rows into y[rows]; a block of 256 threads a row. Needs width >= 1.
template <Defect defect>
__global__ void row_sums(float* y, const float* x, int rows, int width);
/// y[M, N] = a[M, K] · b[N, K] transposed, bf16 in, float out; M and N multiples of 32, K of 16. A block of four warps
/// makes 32 x 32 outputs; tiles of 16 columns come by cp.async into two buffers.
template <Defect defect>
__global__ void matmul(float* y, const gpu::bf16* a, const gpu::bf16* b, int N, int K);
/// y[rows, width] = softmax of x's rows; a warp a row, any width from 1.
template <Defect defect>
__global__ void softmax(float* y, const float* x, int rows, int width);
/// counts[bins] += how often each of 0 .. bins - 1 occurs in x[n]; bins <= 64, every block counts for itself first.
template <Defect defect>
__global__ void histogram(int* counts, const int* x, int n, int bins);

// ---- wrong.cu

/// y[i] = x[i] + 1 for i < n. Right in itself: what it is given decides (memory nobody wrote, of the host, freed, too short).
__global__ void add_one(float* y, const float* x, int n);
/// The same for bytes, by neighbouring threads of neighbouring blocks: no conflict, whatever the checker's grain.
__global__ void add_one_to_bytes(uint8_t* y, const uint8_t* x, int n);
/// Reads four floats at x + shift as one.
__global__ void load_float4(float* y, const float* x, int shift);
__global__ void load_ldg128(float* y, const float* x, int shift);
__global__ void load_ldg64(float* y, const float* x, int shift);
__global__ void load_cp_async(float* y, const float* x, int shift);
/// Hands the address of a local variable to another thread through shared memory.
__global__ void foreign_local(float* y);
/// One float too many in the first of two parts of dynamic shared memory.
__global__ void part_overrun(float* y, int count);
/// An atomic and a plain read of the same counter, in one block or by different ones.
__global__ void plain_beside_atomic(int* counter, int* y);
/// Two lanes meet at a __syncwarp of their own; the third reads what the first wrote.
__global__ void partial_syncwarp(int* y, int reader);
/// A __syncwarp of every warp orders each warp alone: the second reads what the first wrote.
__global__ void syncwarp_of_each(int* y);
/// A cp.async's bytes are there for the thread that waited, and for others behind the next barrier alone.
__global__ void unshared_copy(float* y, const float* x);
/// Many threads read, then one of the readers writes without a barrier: not only the last reader counts.
__global__ void write_after_reads(float* y);
/// For launches that overlap: touches global memory before it waits for the launch before, in one way; shared memory does
/// not count.
enum class Early { nothing, read, ldg, copy, write, atomic };
template <Early early>
__global__ void touches_early(int* y, const int* x);

}  // namespace planted

// ---- patterns.cu: traffic known on paper

namespace pattern {

namespace gpu = minigpt4::gpu;

/// Loads 16 rows of 16 columns with ldmatrix from a tile of rows of 32 + padding 16-bit values; one warp.
template <int padding>
__global__ void tile_rows(uint32_t* y);
/// y = x, 16 bytes a thread.
__global__ void copy4(float4* y, const float4* x, int n);
/// y = x, loaded by ldg128.
__global__ void copy_ldg(uint4* y, const uint4* x);
/// Blocks of 18 bytes, a 16-bit scale and 16 bytes of nibbles, as Q4_0 lies in a file: four lanes a block.
__global__ void blocks18(uint32_t* y, const uint8_t* x);
/// y[i] = x[i, column] of rows of `width` floats.
__global__ void column(float* y, const float* x, int width, int column);
/// Transposes 32 x 32 floats through a tile of rows of 32 + padding; one warp.
template <int padding>
__global__ void transpose(float* y, const float* x);
/// 8- and 16-byte shared accesses side by side: phases of 16 and of 8 lanes.
__global__ void wide(float* y);
/// Every lane goes around the loop lane + 1 times: the n-th time of all lanes is one request.
__global__ void ragged(float* y, const float* x);

}  // namespace pattern
