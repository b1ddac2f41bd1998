// Attention over the pages of a KV cache: what its kernels are given, how they cut the work, and how keys and values of
// 16-bit pages come into shared memory.
//
// A query vector is a row's one head; those of a sequence that read the same key-value head are numbered row by row, and a
// warp's 16 rows are 16 such numbers. The context is cut into pieces of kPiece positions from 0 on; every piece is computed
// alone, in steps of kStep, and the pieces' results are joined in order. Who computes the pieces is free: for few vectors a
// block takes one piece (attention_paged_few.cu), for many it goes through all of them (attention_paged_many.cu).
#pragma once

#include "ops/cuda/attention_steps.h"
#include "ops/cuda/gpu.h"
#include "ops/cuda/ragged.h"
#include "ops/ops.h"

namespace minigpt4::cuda {

inline constexpr int kPiece = 2 * kStep;
inline constexpr int kManyVectors = 64;  // of a block for many

struct PagedAttention {
  float* y = nullptr;        // [rows, H, D]
  const float* q = nullptr;  // [rows, H, D]
  KvPages cache;
  RaggedBatch batch;
  int H = 0, group = 0;  // query heads, and those of one key-value head
  float factor = 0;      // scale · log2 e
  bool whole = false;    // q's and y's heads begin at multiples of 16 bytes, values' rows in shared memory too
  int few = 0;           // a sequence of at most so many vectors is the few kernel's
  // Pieces' results of those, where there can be more than one piece: sums [slot][H][pieces][D] that are not yet divided,
  // and [slot][H][pieces] of largest score and total.
  int pieces = 1;
  float* sums = nullptr;
  float2* scales = nullptr;
  int slots_each = 0;  // slots of a sequence; 0: a row's slot is its number

  __device__ int vectors(int b) const { return rows_of(batch.offsets, b) * group; }
  __device__ int64_t slot(int row, int b) const {
    return slots_each == 0 ? row : int64_t(b) * slots_each + (row - batch.offsets[b]);
  }
};

using PagedKernel = void (*)(PagedAttention);
/// Kernels for head width D, with what a block needs of shared memory.
struct PagedLaunch {
  PagedKernel kernel;
  size_t shared;
};
PagedLaunch attend_few(int D);   // grid: tiles of 16 vectors, kv_heads · slices, up to `pieces`; 128 threads
PagedLaunch attend_many(int D);  // grid: tiles of kManyVectors, kv_heads · slices; 128 threads
PagedKernel attend_join();       // grid: rows, (H + 3) / 4; 128 threads
/// 32-bit pages; grid: tiles of `vectors`, kv_heads · slices; 128 threads.
struct WidePagedLaunch : PagedLaunch {
  int vectors;
};
WidePagedLaunch attend_pages_f32(int D);

/// A run of vectors of one sequence and key-value head, and the output columns that the block computes.
struct VectorTile {
  int sequence, first, count;  // vectors
  int begin_row, position;     // of the sequence: its first row and where that stands
  int kv_head, column, width;
  const PagedAttention& a;

  /// Vectors [tile · size, …) of the sequence; blockIdx.y is key-value head and slice.
  __device__ VectorTile(const PagedAttention& all, const RaggedTile& at, int size)
      : sequence(at.sequence), first(at.tile * size), a(all) {
    const int slices = slices_of(a.cache.head_dim);
    count = min(size, a.vectors(sequence) - first);
    begin_row = a.batch.offsets[sequence];
    position = a.batch.positions[begin_row];
    kv_head = int(blockIdx.y) / slices;
    column = int(blockIdx.y) % slices * kWidestSlice;
    width = min(a.cache.head_dim - column, kWidestSlice);
  }
  __device__ int row(int i) const { return begin_row + (first + i) / a.group; }
  __device__ int head(int i) const { return kv_head * a.group + (first + i) % a.group; }
  /// Where vector i stands; -1 for one that is not there.
  __device__ int position_of(int i) const { return i < count ? position + (first + i) / a.group : -1; }
  /// Positions that the last vector sees.
  __device__ int seen() const { return position_of(count - 1) + 1; }
  /// Vector i in [rows, H, D].
  __device__ int64_t place(int i) const { return (int64_t(row(i)) * a.H + head(i)) * a.cache.head_dim; }
  __device__ const int32_t* pages() const { return a.batch.page_table + int64_t(sequence) * a.batch.max_pages; }
};

/// Where a step's keys lie in shared memory: [dimension][kStep], the eight chunks of a dimension in an order that lets
/// ldmatrix (eight dimensions, the same chunk) and the copies (four dimensions, two neighbouring chunks) meet all banks.
/// A row's order depends on its number in its eight alone.
__device__ inline int key_order(int row) { return row % 4 * 2 + row / 4 % 2; }
__device__ inline int key_place(int dimension, int chunk) {
  return dimension * kStep + (chunk ^ key_order(dimension)) * 8;
}
__host__ __device__ constexpr int key_values(int D) { return chunks_of(D) * 8 * kStep; }
__host__ __device__ constexpr int value_values(int width) { return kStep * row_stride(width); }

/// Eight 16-bit values, of which the first `left` are read and the others are zero.
__device__ inline uint4 load_eight(const gpu::f16* from, int left) {
  uint32_t words[4] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i < left) words[i / 2] |= uint32_t(from[i].bits) << (i % 2 * 16);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/// Copies keys of positions [from, from + kStep) of a sequence; those from `seen` on are not read and become zero. kUnroll:
/// how many pages' numbers are on their way together.
template <int kUnroll>
__device__ inline void load_keys(gpu::f16* to, const KvPages& cache, int kv_head, const int32_t* pages, int from,
                                 int seen, int D) {
#pragma unroll kUnroll
  for (int i = 0; i < kStep / kPagePositions; ++i) {
    const int first = from + i * kPagePositions, page = first < seen ? pages[first / kPagePositions] : 0;
    const gpu::f16* keys =
        static_cast<const gpu::f16*>(cache.k) + (int64_t(page) * cache.kv_heads + kv_head) * D * kPagePositions;
    for (int at = int(threadIdx.x); at < 2 * D; at += int(blockDim.x)) {
      const int left = seen - first - at % 2 * 8;
      gpu::f16* const there = to + key_place(at / 2, 2 * i + at % 2);
      if (left > 0 && left < 8) {
        *reinterpret_cast<uint4*>(there) = load_eight(keys + at * 8, left);
      } else {
        gpu::cp_async16(there, keys + at * 8, left > 0);
      }
    }
  }
}

/// The same of values, columns [column, column + width) of D; rows row_stride(width) apart.
template <int kUnroll>
__device__ inline void load_values(gpu::f16* to, const KvPages& cache, int kv_head, const int32_t* pages, int from,
                                   int seen, int D, int column, int width) {
  const int chunks = chunks_of(width), stride = row_stride(width);
#pragma unroll kUnroll
  for (int i = 0; i < kStep / kPagePositions; ++i) {
    const int first = from + i * kPagePositions, page = first < seen ? pages[first / kPagePositions] : 0;
    const gpu::f16* values = static_cast<const gpu::f16*>(cache.v) +
                             (int64_t(page) * cache.kv_heads + kv_head) * D * kPagePositions + column;
    for (int at = int(threadIdx.x); at < chunks * kPagePositions; at += int(blockDim.x)) {
      const int row = at / chunks, chunk = at % chunks;
      gpu::f16* const there = to + (i * kPagePositions + row) * stride + chunk * 8;
      const bool there_is = first + row < seen;
      if (D % 8 == 0) {
        gpu::cp_async16(there, values + row * D + chunk * 8, there_is);
      } else {
        *reinterpret_cast<uint4*>(there) = load_eight(values + row * D + chunk * 8, there_is ? width - chunk * 8 : 0);
      }
    }
  }
}

/// Zeros behind the last dimension of a step's keys, up to a whole chunk of dimensions.
__device__ inline void clear_key_rest(gpu::f16* keys, int D) {
  const int rest = chunks_of(D) * 8 - D;
  for (int at = int(threadIdx.x); at < rest * 8; at += int(blockDim.x)) {
    *reinterpret_cast<uint4*>(keys + (D + at / 8) * kStep + at % 8 * 8) = make_uint4(0, 0, 0, 0);
  }
}

/// This lane's row of the 8x8 matrix of keys: dimensions d … d + 7 (rows), keys key … key + 7.
struct PagedKeys {
  const gpu::f16* keys;
  __device__ const gpu::f16* operator()(int d, int key) const {
    const int row = int(threadIdx.x % 8);  // and d is a multiple of 8
    return keys + (d + row) * kStep + (key / 8 ^ key_order(row)) * 8;
  }
};

}  // namespace minigpt4::cuda
