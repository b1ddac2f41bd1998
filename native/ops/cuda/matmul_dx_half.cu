// dx = dy · w for F16 and BF16 weights. dy and F16 weights are rounded to bf16, whose range covers both (the CPU multiplies
// in float32): each product then has a relative error of 2^-8 at most, 2^-9 with BF16 weights; sums are float32.
#include "ops/cuda/matmul_dx_tile.h"

namespace minigpt4::cuda {

namespace {

/// A unit is two tiles of half_layout.h.
template <Type type>
struct HalfUnits {
  struct Words {
    uint4 fragments[4];  // of 16 columns each
  };
  __device__ static Words load(const DxProduct& p, int row_tile, int unit, int lane) {
    Words words;
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // columns beyond the last tile repeat it: what comes of them is not written
      const int col_tile = min(2 * unit + i, p.col_tiles - 1);
      const uint8_t* tile = p.weights + row_tile * p.row_tile_bytes + col_tile * kHalfTileBytes;
      words.fragments[2 * i] = gpu::ldg128(tile + 16 * lane);
      words.fragments[2 * i + 1] = gpu::ldg128(tile + kHalfTileBytes / 2 + 16 * lane);
    }
    return words;
  }
  __device__ static uint32_t as_bf16(uint32_t pair) {
    if constexpr (type == Type::BF16) return pair;
    return gpu::pack_bf16(gpu::to_float(gpu::f16{uint16_t(pair)}), gpu::to_float(gpu::f16{uint16_t(pair >> 16)}));
  }
  static constexpr int pairs = 1;
  template <class Put>
  __device__ static void store(const Words& words, const Put& put) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 a = words.fragments[i];
      put(0, 16 * i, as_bf16(a.x));
      put(8, 16 * i, as_bf16(a.y));
      put(0, 16 * i + 8, as_bf16(a.z));
      put(8, 16 * i + 8, as_bf16(a.w));
    }
  }
};

}  // namespace

void CudaOps::matmul_dx_half(float* dx, const DeviceMatrix& w, const float* dy, int T, bool accumulate) {
  const PreparedRows rows = prepare({dy}, RowKind::bf16, T, w.rows);
  const size_t shape = quickest_tile(kDxTiles, w.cols, T, multiprocessors_);
  const TensorTile& tile = kDxTiles[shape];
  const DxKernel kernel =
      w.type == Type::F16 ? dx_kernel<HalfUnits<Type::F16>>(shape) : dx_kernel<HalfUnits<Type::BF16>>(shape);
  run("matmul_dx", kernel, tile.grid(w.cols, T), dim3(unsigned(tile.threads())), dx_shared_bytes(tile),
      dx_product(dx, w, rows, accumulate));
}

}  // namespace minigpt4::cuda
