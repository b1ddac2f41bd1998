// Products of up to 32 rows with quantized weights, which are read once, straight from memory into the registers that the
// matrix units take. More rows come as groups of 32, where the tiles of prefill would leave multiprocessors idle
// (matmul_quantized.cu).
//
// A block is a row tile (16 outputs), or two with more than 8 rows, by 16 warps: warp c sums chunk c of the columns for all
// rows (of a group), in up to four fragments of 8 tokens. The 16 sums of an output meet in shared memory (8 KB a row tile and
// fragment) and are added in order. Groups of the same outputs follow one another: the weights leave memory once.
//
// Why so: decoding is bound by memory, so what counts is bytes in flight. With 64 registers a thread two blocks of 512 share a
// multiprocessor: 32 warps, each of which asks for one or two tiles before it uses the first, are 22 to 37 KB in flight (Q2_K 20, Q3_K 14), where
// 3 TB/s times a latency of 0.8 µs is 18 KB a multiprocessor. A tile of weights costs about 70 instructions for 8 tokens, of the 170
// issue slots that pass while its 576 bytes (Q4_0) arrive. With more rows the activations' bytes would exceed the weights'; two row
// tiles share them, with 128 registers a thread. How many tiles are in flight is what five architectures' registers leave.
#include "ops/cuda/quantized_product.h"

namespace minigpt4::cuda {

namespace {

constexpr int kThreads = kChunks * 32;

/// Row tiles of a block. Types with two runs, and Q5_1 and Q5_K with four fragments, have more factors and planes than would
/// leave registers for two.
constexpr int row_tiles(const QuantizedLayout& layout, int token_tiles) {
  const bool crowded = layout.minimum && layout.bits == 5 && token_tiles == 4;
  return token_tiles == 1 || layout.runs == 2 || crowded ? 1 : 2;
}
/// Tiles of a chunk whose loads are in flight together, of each row tile: what the registers allow.
constexpr int tiles_ahead(const QuantizedLayout& layout, int token_tiles) {
  const int words = layout.bits + layout.scale_lane() / 4 + layout.head_bytes() / 32;
  if (token_tiles > 1)
    return row_tiles(layout, token_tiles) == 2 && (token_tiles == 4 || layout.super || words > 8) ? 1 : 2;
  return words > 8 || (layout.runs == 2 && !layout.minimum) ? 1 : 2;
}
constexpr size_t shared_floats(const QuantizedLayout& layout, int token_tiles) {
  return size_t(kChunks) * row_tiles(layout, token_tiles) * token_tiles * 128;
}

template <Type type, int token_tiles>
__global__ void __launch_bounds__(kThreads, token_tiles == 1 ? 2 : 1)
    decode_quantized(const QuantizedProducts products, const PreparedRows x) {
  gpu::wait_for_previous();
  constexpr QuantizedLayout layout = quantized_layout<type>();
  constexpr int R = row_tiles(layout, token_tiles), N = token_tiles, ahead = tiles_ahead(layout, N);
  constexpr int B = N == 1 ? 1 : 2;  // blocks whose fragments are made together
  // fewer fragments than four are for one group
  const int groups = N < 4 ? 1 : token_blocks(x.T, N * kTokenTile);
  const int block = int(blockIdx.x) / groups, first_token_tile = int(blockIdx.x) % groups * N;
  const int tokens = x.T - first_token_tile * kTokenTile;  // of this group and those behind it
  const QuantizedProducts::One& p = products.of_block(block);
  const int lane = int(threadIdx.x) % 32, chunk = int(threadIdx.x) / 32;
  const int first_tile = (block - p.first_block) * R, last_tile = (p.rows - 1) / kTileRows;
  const int64_t steps = layout.steps(products.cols);
  const int begin = int(chunk_begin(chunk, steps)) * layout.step_tiles();
  const int end = int(chunk_begin(chunk + 1, steps)) * layout.step_tiles();

  const uint8_t* rows[R];
#pragma unroll
  for (int r = 0; r < R; ++r) rows[r] = p.w + min(first_tile + r, last_tile) * layout.row_tile_bytes(products.cols);

  float sum[R][N][4] = {};
  for (int t = begin; t < end; t += ahead) {
    TileWords<type> tiles[ahead][R];
    HeadWords<type> heads[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const uint8_t* step = rows[r] + int64_t(t / layout.step_tiles()) * layout.step_bytes();
      heads[r] = load_head<type, LoadOnce>(step, lane);
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        if (!layout.super && t + i >= end) break;
        const int place = t % layout.step_tiles() + i;
        tiles[i][r] = load_tile<type, LoadOnce>(step + layout.head_bytes() + place * layout.tile_bytes(), lane);
      }
    }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (!layout.super && t + i >= end) break;
      const uint32_t row_tile = uint32_t(t + i) * uint32_t(x.token_tiles()) + uint32_t(first_token_tile);
      const uint8_t* codes = x.codes + int64_t(row_tile) * kRowTileCodes + lane * 8;
      const uint8_t* scales =
          reinterpret_cast<const uint8_t*>(x.scales) + int64_t(row_tile) * kRowTileScales + lane % 4 * 16;
#pragma unroll
      for (int b0 = 0; b0 < 2; b0 += B) {
        uint32_t a[R][B][4];
        BlockFactors<type> factors[R][B];
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
          for (int b = 0; b < B; ++b) {
            tile_fragment<type>(a[r][b], tiles[i][r], b0 + b);
            factors[r][b] = block_factors<type>(tiles[i][r], heads[r], b0 + b);
          }
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
          if (n > 0 && 8 * n >= tokens) break;
          RowWords words[B] = {};  // of rows that are not there, zeros
          const bool coded = 8 * n + lane / 4 < tokens, scaled = 8 * n + 2 * (lane % 4) < tokens;
#pragma unroll
          for (int b = 0; b < B; ++b) {
            if (coded) words[b].codes = gpu::load64(codes + n * kRowTileCodes + (b0 + b) * kRowBlockCodes);
            if (scaled) words[b].scales = gpu::load128(scales + n * kRowTileScales + (b0 + b) * kRowBlockScales);
          }
#pragma unroll
          for (int r = 0; r < R; ++r) {
#pragma unroll
            for (int b = 0; b < B; ++b) add_block<type>(sum[r][n], a[r][b], factors[r][b], words[b]);
          }
        }
      }
    }
  }

  gpu::DynamicShared shared;
  float* sums = shared.take<float>(int(shared_floats(layout, N)));  // [chunk][r][n][j][lane]
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[(((chunk * R + r) * N + n) * 4 + j) * 32 + lane] = sum[r][n][j];
    }
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < R * N * 128; i += kThreads) {
    const int j = i / 32 % 4, n = i / 128 % N, r = i / (128 * N);
    const int row = (first_tile + r) * kTileRows + lane / 4 + 8 * (j / 2), token = 8 * n + 2 * (lane % 4) + j % 2;
    if (row >= p.rows || token >= tokens) continue;
    float total = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) total += sums[c * (R * N * 128) + i];
    float* y = p.y + int64_t(first_token_tile * kTokenTile + token) * p.rows + row;
    if (p.bias) total += p.bias[row];
    *y = p.accumulate ? total + *y : total;
  }
}

template <int token_tiles>
QuantizedLaunch launch_of(Type type) {
  return for_quantized(type, [](auto tag) {
    constexpr QuantizedLayout layout = quantized_layout<tag()>();
    return QuantizedLaunch{decode_quantized<tag(), token_tiles>, kThreads,
                           shared_floats(layout, token_tiles) * sizeof(float),
                           row_tiles(layout, token_tiles) * kTileRows, token_tiles * kTokenTile};
  });
}

}  // namespace

QuantizedLaunch quantized_decode(Type type, int T) {
  return T <= 8 ? launch_of<1>(type) : T <= 16 ? launch_of<2>(type) : launch_of<4>(type);
}

}  // namespace minigpt4::cuda
