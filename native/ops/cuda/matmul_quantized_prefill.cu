// Products of many rows with quantized weights. A block is 128 outputs by 64 tokens, or 64 by 64 where that is
// sooner done (matmul_quantized.cu); a warp 32 by 32 of it (2 row tiles, 4 token tiles). Tiles of 64 columns come, quantized as they lie,
// through a ring of three stages of cp.async into shared memory: weights and rows are in the order of fragments there already,
// so that every load is 16 or 8 bytes a lane side by side. A stage holds, of each row tile, its super-block's head and the
// tile, and of each token tile codes and scales: 9.5 KB in Q4_0, 13.5 KB in Q8_0, three times. Sums of the chunks before lie in
// shared memory, too (32 KB): they are needed 16 times, and their registers all the time.
//
// Blocks of the same outputs follow one another, so that weights, which may be more than the second-level cache holds, leave
// memory once, and the rows, which are few, stay there.
//
// Why so: a fragment's integer sums take 16 instructions to become float32 sums, so that those, not the matrix units or shared
// memory, bound the kernel at about 900 multiply-adds a cycle and multiprocessor; a block of 128 by 64 then asks for 18 bytes
// a cycle of the second-level cache, which gives about 24. With 128 registers a thread two blocks share a multiprocessor (four
// of the smaller), so that one computes while the other waits.
#include "ops/cuda/quantized_product.h"

namespace minigpt4::cuda {

namespace {

constexpr int kStages = 3;
constexpr int kBlockTokenTiles = 8;                    // of a block
constexpr int kWarpRowTiles = 2, kWarpTokenTiles = 4;  // of a warp
constexpr int kTokenWarps = kBlockTokenTiles / kWarpTokenTiles;

constexpr int threads(int row_warps) { return row_warps * kTokenWarps * 32; }
/// A row tile's part of a stage.
constexpr int record_bytes(const QuantizedLayout& layout) { return layout.head_bytes() + layout.tile_bytes(); }
constexpr int stage_bytes(const QuantizedLayout& layout, int row_warps) {
  return row_warps * kWarpRowTiles * record_bytes(layout) + kBlockTokenTiles * (kRowTileCodes + kRowTileScales);
}

constexpr int kSums = kWarpRowTiles * kWarpTokenTiles * 4;  // of a thread

/// Copies bytes, a multiple of 16, by the 32 lanes of a warp.
__device__ inline void copy_by_warp(uint8_t* to, const uint8_t* from, int bytes, bool valid, int lane) {
  for (int i = lane * 16; i < bytes; i += 32 * 16) gpu::cp_async16(to + i, valid ? from + i : from, valid);
}

template <Type type, int row_warps>
__global__ void __launch_bounds__(threads(row_warps), row_warps == 4 ? 2 : 4)
    prefill_quantized(const QuantizedProducts products, const PreparedRows x) {
  gpu::wait_for_previous();
  constexpr QuantizedLayout layout = quantized_layout<type>();
  constexpr int warps = row_warps * kTokenWarps, row_tiles = row_warps * kWarpRowTiles;
  constexpr int record = record_bytes(layout), stage_size = stage_bytes(layout, row_warps);
  constexpr int codes_at = row_tiles * record, scales_at = codes_at + kBlockTokenTiles * kRowTileCodes;
  const int across = token_blocks(x.T, kBlockTokenTiles * kTokenTile);
  const int block = int(blockIdx.x) / across;
  const QuantizedProducts::One& p = products.of_block(block);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int first_row_tile = (block - p.first_block) * row_tiles;
  const int all_row_tiles = (p.rows + kTileRows - 1) / kTileRows, all_token_tiles = x.token_tiles();
  const int first_token_tile = int(blockIdx.x) % across * kBlockTokenTiles;
  const int steps = int(layout.steps(products.cols)), tiles = steps * layout.step_tiles();

  gpu::DynamicShared dynamic;
  uint8_t* shared = dynamic.take<uint8_t>(kStages * stage_size);
  float* totals = dynamic.take<float>(kSums * threads(row_warps)) + threadIdx.x;  // of the chunks before this one

  const auto start_stage = [&](int t) {
    if (t < tiles) {
      uint8_t* stage = shared + t % kStages * stage_size;
      for (int r = warp; r < row_tiles; r += warps) {
        const bool valid = first_row_tile + r < all_row_tiles;
        const uint8_t* step = p.w + (valid ? first_row_tile + r : 0) * layout.row_tile_bytes(products.cols) +
                              int64_t(t / layout.step_tiles()) * layout.step_bytes();
        const uint8_t* tile = step + layout.head_bytes() + t % layout.step_tiles() * layout.tile_bytes();
        copy_by_warp(stage + r * record + layout.head_bytes(), tile, layout.tile_bytes(), valid, lane);
        if (layout.head_bytes() > 0) copy_by_warp(stage + r * record, step, layout.head_bytes(), valid, lane);
      }
      for (int n = warp; n < kBlockTokenTiles; n += warps) {
        const bool valid = first_token_tile + n < all_token_tiles;
        const int64_t at = valid ? int64_t(t) * all_token_tiles + first_token_tile + n : 0;
        copy_by_warp(stage + codes_at + n * kRowTileCodes, x.codes + at * kRowTileCodes, kRowTileCodes, valid, lane);
        copy_by_warp(stage + scales_at + n * kRowTileScales,
                     reinterpret_cast<const uint8_t*>(x.scales) + at * kRowTileScales, kRowTileScales, valid, lane);
      }
    }
    gpu::cp_commit();  // an empty group keeps the count
  };

  const int warp_row_tile = warp / kTokenWarps * kWarpRowTiles, warp_token_tile = warp % kTokenWarps * kWarpTokenTiles;
  float sum[kWarpRowTiles][kWarpTokenTiles][4] = {};
#pragma unroll
  for (int t = 0; t < kStages - 1; ++t) start_stage(t);
  int chunk = 0;
  int chunk_end = int(chunk_begin(1, steps)) * layout.step_tiles();
  for (int t = 0; t < tiles; ++t) {
    gpu::cp_wait<kStages - 2>();
    __syncthreads();  // the stage is there for all, and the one computed last is free
    start_stage(t + kStages - 1);
    if (t == chunk_end) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        float& of = sum[i / (4 * kWarpTokenTiles)][i / 4 % kWarpTokenTiles][i % 4];
        float& total = totals[i * threads(row_warps)];
        total = (chunk == 0 ? 0.0f : total) + of;
        of = 0;
      }
      // chunks without columns add a zero to a total that is no negative zero: nothing
      while (chunk_end == t) chunk_end = int(chunk_begin(++chunk + 1, steps)) * layout.step_tiles();
    }
    const uint8_t* stage = shared + t % kStages * stage_size;
    TileWords<type> words[kWarpRowTiles];
    HeadWords<type> heads[kWarpRowTiles];
#pragma unroll
    for (int r = 0; r < kWarpRowTiles; ++r) {
      const uint8_t* at = stage + (warp_row_tile + r) * record;
      heads[r] = load_head<type, LoadShared>(at, lane);
      words[r] = load_tile<type, LoadShared>(at + layout.head_bytes(), lane);
    }
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      uint32_t a[kWarpRowTiles][4];
      BlockFactors<type> factors[kWarpRowTiles];
#pragma unroll
      for (int r = 0; r < kWarpRowTiles; ++r) {
        tile_fragment<type>(a[r], words[r], b);
        factors[r] = block_factors<type>(words[r], heads[r], b);
      }
#pragma unroll
      for (int n = 0; n < kWarpTokenTiles; ++n) {
        if (first_token_tile + warp_token_tile + n >= all_token_tiles) break;
        const uint8_t* codes = stage + codes_at + (warp_token_tile + n) * kRowTileCodes + b * kRowBlockCodes;
        const uint8_t* scales = stage + scales_at + (warp_token_tile + n) * kRowTileScales + b * kRowBlockScales;
        const RowWords row{LoadShared::load64(codes + lane * 8), LoadShared::load128(scales + lane % 4 * 16)};
#pragma unroll
        for (int r = 0; r < kWarpRowTiles; ++r) add_block<type>(sum[r][n], a[r], factors[r], row);
      }
    }
  }
  gpu::cp_wait<0>();

#pragma unroll
  for (int r = 0; r < kWarpRowTiles; ++r) {
#pragma unroll
    for (int n = 0; n < kWarpTokenTiles; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = (first_row_tile + warp_row_tile + r) * kTileRows + lane / 4 + 8 * (j / 2);
        const int token = (first_token_tile + warp_token_tile + n) * kTokenTile + 2 * (lane % 4) + j % 2;
        if (row >= p.rows || token >= x.T) continue;
        float value = totals[((r * kWarpTokenTiles + n) * 4 + j) * threads(row_warps)] + sum[r][n][j];
        float* y = p.y + int64_t(token) * p.rows + row;
        if (p.bias) value += p.bias[row];
        *y = p.accumulate ? value + *y : value;
      }
    }
  }
}

template <int row_warps>
QuantizedLaunch launch_of(Type type) {
  return for_quantized(type, [](auto tag) {
    return QuantizedLaunch{prefill_quantized<tag(), row_warps>, threads(row_warps),
                           size_t(kStages) * stage_bytes(quantized_layout<tag()>(), row_warps) +
                               kSums * threads(row_warps) * sizeof(float),
                           row_warps * kWarpRowTiles * kTileRows, kBlockTokenTiles * kTokenTile};
  });
}

}  // namespace

QuantizedLaunch quantized_prefill(Type type, bool smaller) { return smaller ? launch_of<2>(type) : launch_of<4>(type); }

}  // namespace minigpt4::cuda
