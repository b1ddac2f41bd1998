// Rows of a weight by id, dequantized: the very values of the file. A block is a row and up to 4096 of its columns; four threads
// take a tile of 64 columns (32 of F16 and BF16), each what a lane holds of it, and write 64 (32) consecutive bytes.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/half_layout.h"
#include "ops/cuda/quantized_tile.h"

namespace minigpt4::cuda {

namespace {

constexpr int kThreads = 256;

struct EmbedRows {
  float* y;  // [T, cols]
  const uint8_t* w;
  const int32_t* ids;
  int cols;
};

__device__ inline void store_four(float* y, const EmbedRows& e, int col, const float (&v)[4]) {
  if (col >= e.cols) return;
  *reinterpret_cast<float4*>(y + col) = make_float4(v[0], v[1], v[2], v[3]);  // cols is a multiple of 32
}

template <Type type>
__global__ void __launch_bounds__(kThreads) embed_quantized(const EmbedRows e) {
  gpu::wait_for_previous();
  constexpr QuantizedLayout layout = quantized_layout<type>();
  const int part = int(blockIdx.y) * kThreads + int(threadIdx.x), t = part / 4, q = part % 4;
  if (t * kTileCols >= e.cols) return;
  const int id = e.ids[blockIdx.x], h = id % kTileRows / 8, lane = id % 8 * 4 + q;
  const uint8_t* step =
      e.w + id / kTileRows * layout.row_tile_bytes(e.cols) + int64_t(t / layout.step_tiles()) * layout.step_bytes();
  const uint8_t* tile = step + layout.head_bytes() + t % layout.step_tiles() * layout.tile_bytes();
  float v[2][4][4];
  tile_values<type>(v, load_tile<type, LoadCached>(tile, lane), load_head<type, LoadCached>(step, lane));
  float* y = e.y + int64_t(blockIdx.x) * e.cols;
#pragma unroll
  for (int b = 0; b < 2; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int col = t * kTileCols + 32 * b + 16 * half + 4 * q;
      if (h == 0) {
        store_four(y, e, col, v[b][2 * half]);
      } else {
        store_four(y, e, col, v[b][2 * half + 1]);
      }
    }
  }
}

template <Type type>
__global__ void __launch_bounds__(kThreads) embed_half(const EmbedRows e) {
  gpu::wait_for_previous();
  const int part = int(blockIdx.y) * kThreads + int(threadIdx.x), t = part / 4, q = part % 4;
  if (t * kHalfTileCols >= e.cols) return;
  const int id = e.ids[blockIdx.x], h = id % 16 / 8, lane = id % 8 * 4 + q;
  const uint8_t* tile = e.w + (id / 16 * half_col_tiles(e.cols) + t) * kHalfTileBytes;
  float* y = e.y + int64_t(blockIdx.x) * e.cols;
#pragma unroll
  for (int fragment = 0; fragment < 2; ++fragment) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t word = gpu::ldg32(tile + fragment * 512 + lane * 16 + (2 * half + h) * 4);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int col = t * kHalfTileCols + 16 * fragment + 8 * half + 2 * q + i;
        const uint16_t bits = uint16_t(word >> (16 * i));
        if (col < e.cols) y[col] = type == Type::F16 ? gpu::to_float(gpu::f16{bits}) : gpu::to_float(gpu::bf16{bits});
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads) embed_f32(const EmbedRows e) {
  gpu::wait_for_previous();
  const int col = int(blockIdx.y) * kThreads + int(threadIdx.x);
  if (col >= e.cols) return;
  const float* row = reinterpret_cast<const float*>(e.w) + int64_t(e.ids[blockIdx.x]) * e.cols;
  e.y[int64_t(blockIdx.x) * e.cols + col] = row[col];
}

}  // namespace

void CudaOps::embed(float* y, const Matrix& w, const int32_t* ids, int T) {
  if (T <= 0) return;
  const EmbedRows rows{y, static_cast<const DeviceMatrix&>(w).data, ids, int(w.cols)};
  void (*kernel)(EmbedRows) = embed_f32;
  int64_t threads = w.cols;  // of a row
  if (w.type == Type::F16 || w.type == Type::BF16) {
    kernel = w.type == Type::F16 ? embed_half<Type::F16> : embed_half<Type::BF16>;
    threads = 4 * half_col_tiles(w.cols);
  } else if (is_quantized(w.type)) {
    kernel = for_quantized(w.type, [](auto tag) -> void (*)(EmbedRows) { return embed_quantized<tag()>; });
    threads = 4 * ((w.cols + kTileCols - 1) / kTileCols);
  }
  run_overlapping("embed", kernel, dim3(unsigned(T), unsigned((threads + kThreads - 1) / kThreads)), dim3(kThreads), 0,
                  rows);
}

}  // namespace minigpt4::cuda
