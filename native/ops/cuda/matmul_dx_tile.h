// dx = dy · w on the matrix units, for weights that are packed as fragments: quantized, F16, BF16.
//
// The sum runs over the weight's rows, so a fragment of operand A is 16 columns of w (the outputs) by 16 rows: the packed
// fragments lie the other way. A step is 64 rows: each warp decodes a unit of 16 rows by 64 columns into bf16 in shared
// memory, row-major, and ldmatrix_trans turns it. dy is prepared as bf16 rows (prepared_rows.h) and copied as it lies. Both
// are doubly buffered: while a step is multiplied the next one's dy arrives, its weights are decoded and those of the step
// after are loaded to registers. Warps 4 to 7 decode before they multiply, warps 0 to 3 after, so that on each of a
// multiprocessor's four parts one warp feeds the matrix unit while the other decodes.
//
// A decoded row's 16-byte pieces are swapped by the row's number: eight rows that ldmatrix reads, the 4-byte stores of half
// weights and the 8-byte stores of quantized ones all meet 32 different banks.
//
// An output is one chain of matrix instructions from the weight's first row to its last, whatever the tile.
#pragma once

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/matmul_half_few.h"

namespace minigpt4::cuda {

inline constexpr int kUnitRows = 16, kUnitCols = 64, kDxStepRows = 64;

inline constexpr TensorTile kDxTiles[] = {
    {2, 4, 4, 8, 1, 100},  // 128 outputs x 256 tokens: 34 KB of decoded weights, 64 KB of dy
    {2, 2, 2, 4, 4, 170},  // 64 x 64
};
constexpr int dx_weight_bytes(const TensorTile& tile) { return kDxStepRows * tile.outputs() * 2; }
constexpr int dx_token_bytes(const TensorTile& tile) { return tile.block_token_tiles() * 2 * kHalfTokenTileBytes; }
constexpr size_t dx_shared_bytes(const TensorTile& tile) {
  return size_t(2 * (dx_weight_bytes(tile) + dx_token_bytes(tile)));
}

/// Byte of (row, col) in decoded weights of `cols` columns. Adding to col what its bits have room for is the same as
/// decoded_at ^ 2 · that: kernels reach all of a lane's places from one.
template <int cols>
__device__ inline int decoded_at(int row, int col) {
  const int turned = (row << 1 & 6) | (row >> 2 & 1);  // rows 0-3 and 4-7 of eight each take every second piece
  return row * cols * 2 + (((col >> 3) ^ turned) << 4) + (col & 7) * 2;
}

struct DxProduct {
  const uint8_t* weights;
  int64_t row_tile_bytes;
  const uint8_t* rows;  // dy, prepared
  int row_tiles;        // of 16, of the weight
  int steps;            // of 32 rows, as dy has them
  int units;            // of 64 columns
  int col_tiles;        // of 32, of half weights
  int token_tiles;
  SumsTo to;
};
inline DxProduct dx_product(float* dx, const DeviceMatrix& w, const PreparedRows& dy, bool accumulate) {
  const int row_tiles = int((w.rows + kUnitRows - 1) / kUnitRows);
  return {w.data,
          int64_t(w.bytes) / row_tiles,  // a packed matrix is its row tiles, one after the other
          dy.codes,
          row_tiles,
          int(dy.col_tiles),
          int((w.cols + kUnitCols - 1) / kUnitCols),
          int(half_col_tiles(w.cols)),
          dy.token_tiles(),
          {dx, nullptr, int(w.cols), dy.T, accumulate}};
}

using DxKernel = void (*)(DxProduct);
/// The kernels of blocks of 32 values and of 256 (K), compiled apart because they take long.
DxKernel dx_kernel_of_blocks(Type type, size_t shape);
DxKernel dx_kernel_of_super_blocks(Type type, size_t shape);

/// `Units` loads a lane's words of a unit, load(product, row_tile, unit, lane), and decodes them: store(words, put) calls
/// put(row, col, pairs…) with one or two pairs of bf16 (`pairs` says how many) for row g + row and column
/// 2 · pairs · q + col of the unit; col is a multiple of 8.
template <class Units, int shape>
__global__ void __launch_bounds__(kDxTiles[shape].threads(), kDxTiles[shape].blocks)
    matmul_dx_packed(const DxProduct p) {
  constexpr TensorTile tile = kDxTiles[shape];
  constexpr int cols = tile.outputs(), warps = tile.warps(), units = cols / kUnitCols;
  constexpr int weight_bytes = dx_weight_bytes(tile), token_bytes = dx_token_bytes(tile);
  static_assert(kDxStepRows / kUnitRows * units == warps, "a warp decodes a unit of each step");
  gpu::DynamicShared shared;
  uint8_t* const decoded = shared.take<uint8_t>(2 * weight_bytes);
  uint8_t* const tokens = shared.take<uint8_t>(2 * token_bytes);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int first_unit = int(blockIdx.y) * units, first_token_tile = int(blockIdx.x) * tile.block_token_tiles();
  const int count = (p.steps + 1) / 2;

  // dy's tiles that this warp copies: a tile's two steps of 32 rows are 1024 bytes. What is beyond the last token or row
  // counts as zeros.
  constexpr int pieces = tile.block_token_tiles() / warps;
  const int64_t stride = int64_t(p.steps) * kHalfTokenTileBytes;
  const int first_piece = first_token_tile + warp * pieces;
  const uint8_t* from = p.rows + first_piece * stride + 16 * lane;
  const auto copy_tokens = [&](int step) {
    uint8_t* const to = tokens + step % 2 * token_bytes + warp * pieces * 2 * kHalfTokenTileBytes + 16 * lane;
#pragma unroll
    for (int i = 0; i < 2 * pieces; ++i) {
      const bool there = first_piece + i / 2 < p.token_tiles && 2 * step + i % 2 < p.steps;
      gpu::cp_async16(to + i * kHalfTokenTileBytes, from + i / 2 * stride + i % 2 * kHalfTokenTileBytes, there);
    }
    from += 2 * kHalfTokenTileBytes;
    gpu::cp_commit();
  };

  const int unit_row = warp / units, unit_col = warp % units;
  const int unit = min(first_unit + unit_col, p.units - 1);
  const auto load = [&](int step) {  // rows beyond the last tile repeat it: finite values for dy's zeros
    const int row_tile = step * (kDxStepRows / kUnitRows) + unit_row;
    return Units::load(p, min(row_tile, p.row_tiles - 1), unit, lane);
  };
  const int first_put =
      decoded_at<cols>(unit_row * kUnitRows + lane / 4, unit_col * kUnitCols + lane % 4 * 2 * Units::pairs);
  const auto decode = [&](const typename Units::Words& words, int step) {
    uint8_t* const to = decoded + step % 2 * weight_bytes;
    const auto put = [&](int row, int col, auto... pairs) {
      uint8_t* const at = to + row * cols * 2 + (first_put ^ 2 * col);
      if constexpr (sizeof...(pairs) == 2) {
        *reinterpret_cast<uint2*>(at) = make_uint2(pairs...);
      } else {
        *reinterpret_cast<uint32_t*>(at) = (pairs, ...);
      }
    };
    Units::store(words, put);
  };

  const int warp_col = warp % tile.output_warps * tile.output_tiles * 16;
  const int warp_token_tile = warp / tile.output_warps * tile.token_tiles;
  // ldmatrix: of the 16 rows x 16 columns of a fragment, the eight columns of one row that this lane gives the address of
  const int first_fragment = decoded_at<cols>(lane / 16 * 8 + lane % 8, warp_col + lane / 8 % 2 * 8);
  float sums[tile.output_tiles][tile.token_tiles][4] = {};
  const auto multiply = [&](int step) {
    const uint8_t* const a = decoded + step % 2 * weight_bytes;
    const uint8_t* const b = tokens + step % 2 * token_bytes + warp_token_tile * 2 * kHalfTokenTileBytes + 16 * lane;
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      uint4 right[tile.token_tiles];
#pragma unroll
      for (int t = 0; t < tile.token_tiles; ++t) {
        right[t] = *reinterpret_cast<const uint4*>(b + (2 * t + half) * kHalfTokenTileBytes);
      }
#pragma unroll
      for (int quarter = 0; quarter < 2; ++quarter) {
#pragma unroll
        for (int c = 0; c < tile.output_tiles; ++c) {
          uint32_t left[4];
          gpu::ldmatrix_x4_trans(left, a + (32 * half + 16 * quarter) * cols * 2 + (first_fragment ^ 32 * c));
#pragma unroll
          for (int t = 0; t < tile.token_tiles; ++t) {
            const uint32_t two[2] = {quarter ? right[t].z : right[t].x, quarter ? right[t].w : right[t].y};
            gpu::mma_bf16(sums[c][t], left, two);
          }
        }
      }
    }
  };

  typename Units::Words words = load(0);
  copy_tokens(0);
  decode(words, 0);
  if (count > 1) words = load(1);
  gpu::cp_wait<0>();
  __syncthreads();
  for (int step = 0; step < count; ++step) {
    if (step + 1 < count) copy_tokens(step + 1);
#pragma unroll 1
    for (int phase = 0; phase < 2; ++phase) {
      if ((warp / 4 + phase) % 2 == 0) {
        multiply(step);
      } else if (step + 1 < count) {
        decode(words, step + 1);
        if (step + 2 < count) words = load(step + 2);
      }
    }
    gpu::cp_wait<0>();
    __syncthreads();
  }
#pragma unroll
  for (int c = 0; c < tile.output_tiles; ++c) {
    write_sums(sums[c], p.to, first_unit * kUnitCols + warp_col + 16 * c, 8 * (first_token_tile + warp_token_tile));
  }
}

template <class Units>
DxKernel dx_kernel(size_t shape) {
  static_assert(std::size(kDxTiles) == 2);
  return shape == 0 ? matmul_dx_packed<Units, 0> : matmul_dx_packed<Units, 1>;
}

}  // namespace minigpt4::cuda
