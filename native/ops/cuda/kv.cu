// Writing keys and values into the cache's pages, on the way turning them and the queries (RoPE), and copying pages.
//
// Writing: a block takes one page of one sequence and 128 of the columns (head, dimension) of its rows, a thread a column.
// Keys lie [column][16 positions]: a whole page's are turned in shared memory (8 KB for F32) so that a warp's stores are one
// stretch; a part of a page, as in decoding, is written value by value. Values lie as they come. Where heads are turned, the
// partner of a key's value is the neighbouring lane's, and more blocks take 128 of the queries' pairs each, for the same rows.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/ragged.h"

namespace minigpt4::cuda {

namespace {

constexpr int kColumns = 128;

__device__ inline void convert(gpu::f16& to, float x) { to = gpu::to_f16(x); }
__device__ inline void convert(float& to, float x) { to = x; }

/// What is turned besides the keys: q[T, H, D], the first 2 · half values of every head by table[T, half].
struct Turn {
  float* q;
  const float2* table;
  int H, half;
};

/// turns: D is even, so that the values of a pair are two neighbouring lanes'.
template <class Value, bool turns>
__global__ void __launch_bounds__(kColumns)
    kv_write_kernel(KvPages cache, float* k, const float* v, Turn turn, RaggedBatch batch) {
  gpu::wait_for_previous();
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
  if constexpr (turns) {
    const int key_blocks = (width + kColumns - 1) / kColumns;
    if (int(blockIdx.y) >= key_blocks) {
      const int pair = (int(blockIdx.y) - key_blocks) * kColumns + int(threadIdx.x);
      if (pair >= turn.H * turn.half) return;
      const int head = pair / turn.half, angle = pair % turn.half;
      const int64_t row = begin + from - first;
      float2* const q = reinterpret_cast<float2*>(turn.q + (row * turn.H + head) * D) + angle;
      const float2* const by = turn.table + row * turn.half + angle;
      const int64_t q_stride = int64_t(turn.H) * D / 2;  // D is even
      constexpr int kRows = 4;                           // on their way at a time
      for (int i = 0; i < to - from; i += kRows) {
        float2 x[kRows], turning[kRows];
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
          if (i + j >= to - from) break;
          x[j] = q[(i + j) * q_stride];
          turning[j] = by[int64_t(i + j) * turn.half];
        }
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
          if (i + j >= to - from) break;
          const float2 a = x[j], b = turning[j];
          q[(i + j) * q_stride] = make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
        }
      }
      return;
    }
  }
  const int block_column = int(blockIdx.y) * kColumns, column = block_column + int(threadIdx.x);
  const int64_t row = begin + from - first, page_begin = int64_t(page) * kPagePositions * width;
  const int slot = from % kPagePositions, count = to - from;
  Value* const k_page = static_cast<Value*>(cache.k) + page_begin;
  const bool inside = column < width;
  float* const k_from = k + row * width + column;
  const int place_in_head = column % D;
  const bool turned_here = turns && inside && place_in_head < 2 * turn.half;
  // Of the column, n rows from the i-th here on, all on their way before the first is used; a warp's threads ask together.
  const auto keys = [&](int i, int n, float(&x)[kChunk]) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) x[j] = inside && j < n ? k_from[int64_t(i + j) * width] : 0;
    if constexpr (turns) {
      float2 by[kChunk];
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (turned_here && j < n) by[j] = turn.table[(row + i + j) * turn.half + place_in_head / 2];
      }
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        const float other = __shfl_xor_sync(0xffffffffu, x[j], 1);
        if (turned_here && j < n) {
          x[j] = place_in_head % 2 == 0 ? x[j] * by[j].x - other * by[j].y : other * by[j].y + x[j] * by[j].x;
          k_from[int64_t(i + j) * width] = x[j];
        }
      }
    }
  };
  if (inside) {
    // a head's values are [16][D]
    Value* const v_column = static_cast<Value*>(cache.v) + page_begin + int64_t(column / D) * kPagePositions * D +
                            place_in_head + int64_t(slot) * D;
    const float* v_from = v + row * width + column;
    for (int i = 0; i < count; i += kChunk) {
      float x[kChunk];
#pragma unroll
      for (int j = 0; j < kChunk; ++j) x[j] = i + j < count ? v_from[int64_t(i + j) * width] : 0;
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (i + j < count) convert(v_column[int64_t(i + j) * D], x[j]);
      }
    }
  }
  if (count < kPagePositions) {
    Value* const k_column = k_page + int64_t(column) * kPagePositions + slot;
    for (int i = 0; i < count; i += kChunk) {
      float x[kChunk];
      keys(i, count - i, x);
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (inside && i + j < count) convert(k_column[i + j], x[j]);
      }
    }
    return;  // the whole block
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    union {
      Value values[kChunk];
      uint4 bits;
    } chunk;
    float x[kChunk];
    keys(c * kChunk, kChunk, x);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) convert(chunk.values[i], x[i]);
    if (inside) {
      // chunks of neighbouring columns change places so that eight threads' stores meet all banks
      turned[threadIdx.x * kChunks + (unsigned(c) ^ threadIdx.x * kChunks / 8 % kChunks)] = chunk.bits;
    }
  }
  __syncthreads();
  uint4* const k_to = reinterpret_cast<uint4*>(k_page + int64_t(block_column) * kPagePositions);
  const int chunks = min(kColumns, width - block_column) * kChunks;
  for (int i = int(threadIdx.x); i < chunks; i += kColumns) {
    const int of = i / kChunks;
    k_to[i] = turned[of * kChunks + (i % kChunks ^ of * kChunks / 8 % kChunks)];
  }
}

/// At least the pages that get a row: a sequence's rows begin and end within one, so there are at most two more than whole
/// ones, and every page has a row.
unsigned pages_touched(const RaggedBatch& batch) {
  return unsigned(std::min(batch.rows, batch.rows / kPagePositions + 2 * batch.sequences));
}

unsigned column_blocks(int columns) { return unsigned((columns + kColumns - 1) / kColumns); }

}  // namespace

void CudaOps::kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) {
  const auto kernel = cache.type == Type::F16 ? kv_write_kernel<gpu::f16, false> : kv_write_kernel<float, false>;
  // k is only read where nothing is turned
  run_overlapping("kv_write", kernel, dim3(pages_touched(batch), column_blocks(cache.kv_heads * cache.head_dim)),
                  dim3(kColumns), 0, cache, const_cast<float*>(k), v, Turn{}, batch);
}

void CudaOps::rope_kv_write(const KvPages& cache, float* q, float* k, const float* v, const float* table, int H,
                            int half, const RaggedBatch& batch) {
  if (cache.head_dim % 2 != 0 || half == 0) {
    rope(q, table, batch.rows, H, cache.head_dim, half);
    rope(k, table, batch.rows, cache.kv_heads, cache.head_dim, half);
    kv_write(cache, k, v, batch);
    return;
  }
  const auto kernel = cache.type == Type::F16 ? kv_write_kernel<gpu::f16, true> : kv_write_kernel<float, true>;
  const dim3 grid(pages_touched(batch), column_blocks(cache.kv_heads * cache.head_dim) + column_blocks(H * half));
  run_overlapping("rope_kv_write", kernel, grid, dim3(kColumns), 0, cache, k, v,
                  Turn{q, reinterpret_cast<const float2*>(table), H, half}, batch);
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
