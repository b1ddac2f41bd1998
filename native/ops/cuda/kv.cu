// Writing keys and values into the cache's pages, and copying pages.
//
// Writing: a block takes one page of one sequence and 128 of the columns (head, dimension) of its rows, a thread a column.
// Keys lie [column][16 positions]: a whole page's are turned in shared memory (8 KB for F32) so that a warp's stores are one
// stretch; a part of a page, as in decoding, is written value by value. Values lie as they come.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/ragged.h"

namespace minigpt4::cuda {

namespace {

constexpr int kColumns = 128;

__device__ inline void convert(gpu::f16& to, float x) { to = gpu::to_f16(x); }
__device__ inline void convert(float& to, float x) { to = x; }

template <class Value>
__global__ void __launch_bounds__(kColumns)
    kv_write_kernel(KvPages cache, const float* k, const float* v, RaggedBatch batch) {
  constexpr int kChunk = 16 / int(sizeof(Value));   // values in 16 bytes
  constexpr int kChunks = kPagePositions / kChunk;  // of a column's keys
  GPU_SHARED(uint4, turned, [kColumns * kChunks]);
  const RaggedTile at = find_tile(batch.sequences, int(blockIdx.x), [&](int b) {
    const int begin = batch.offsets[b], rows = batch.offsets[b + 1] - begin;
    if (rows == 0) return 0;
    const int first = batch.positions[begin];
    return (first + rows - 1) / kPagePositions - first / kPagePositions + 1;
  });
  if (at.sequence < 0) return;
  const int begin = batch.offsets[at.sequence], rows = batch.offsets[at.sequence + 1] - begin;
  const int first = batch.positions[begin];
  const int place = first / kPagePositions + at.tile;  // of the page in its sequence
  const int from = max(first, place * kPagePositions), to = min(first + rows, (place + 1) * kPagePositions);
  const int page = batch.page_table[int64_t(at.sequence) * batch.max_pages + place];

  const int D = cache.head_dim, width = cache.kv_heads * D;
  const int block_column = int(blockIdx.y) * kColumns, column = block_column + int(threadIdx.x);
  const int64_t row = begin + from - first, page_begin = int64_t(page) * kPagePositions * width;
  const int slot = from % kPagePositions, count = to - from;
  Value* const k_page = static_cast<Value*>(cache.k) + page_begin;
  if (column < width) {
    // a head's values are [16][D]
    Value* const v_column = static_cast<Value*>(cache.v) + page_begin + int64_t(column / D) * kPagePositions * D +
                            column % D + int64_t(slot) * D;
    const float *v_from = v + row * width + column, *k_from = k + row * width + column;
    for (int i = 0; i < count; ++i) convert(v_column[int64_t(i) * D], v_from[int64_t(i) * width]);
    if (count < kPagePositions) {
      Value* const k_column = k_page + int64_t(column) * kPagePositions + slot;
      for (int i = 0; i < count; ++i) convert(k_column[i], k_from[int64_t(i) * width]);
    } else {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        union {
          Value values[kChunk];
          uint4 bits;
        } chunk;
#pragma unroll
        for (int i = 0; i < kChunk; ++i) convert(chunk.values[i], k_from[int64_t(c * kChunk + i) * width]);
        // chunks of neighbouring columns change places so that eight threads' stores meet all banks
        turned[threadIdx.x * kChunks + (unsigned(c) ^ threadIdx.x * kChunks / 8 % kChunks)] = chunk.bits;
      }
    }
  }
  if (count < kPagePositions) return;  // the whole block
  __syncthreads();
  uint4* const k_to = reinterpret_cast<uint4*>(k_page + int64_t(block_column) * kPagePositions);
  const int chunks = min(kColumns, width - block_column) * kChunks;
  for (int i = int(threadIdx.x); i < chunks; i += kColumns) {
    const int of = i / kChunks;
    k_to[i] = turned[of * kChunks + (i % kChunks ^ of * kChunks / 8 % kChunks)];
  }
}

}  // namespace

void CudaOps::kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) {
  // A sequence's rows begin and end within a page: at most two pages more than whole ones, and every page has a row.
  const int pages = std::min(batch.rows, batch.rows / kPagePositions + 2 * batch.sequences);
  const dim3 grid(unsigned(pages), unsigned((cache.kv_heads * cache.head_dim + kColumns - 1) / kColumns));
  const auto kernel = cache.type == Type::F16 ? kv_write_kernel<gpu::f16> : kv_write_kernel<float>;
  run("kv_write", kernel, grid, dim3(kColumns), 0, cache, k, v, batch);
}

void CudaOps::kv_copy_page(const KvPages& cache, int to, int from) {
  const size_t bytes = size_t(kPagePositions) * size_t(cache.kv_heads) * size_t(cache.head_dim) *
                       (cache.type == Type::F16 ? sizeof(gpu::f16) : sizeof(float));
  for (void* pages : {cache.k, cache.v}) {
    uint8_t* const begin = static_cast<uint8_t*>(pages);
    copy(begin + size_t(to) * bytes, begin + size_t(from) * bytes, bytes);
  }
}

}  // namespace minigpt4::cuda
