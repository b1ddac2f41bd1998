// Quantized weights for matmul_dx_tile.h: a unit is a tile of quantized_layout.h.
#pragma once

#include "ops/cuda/matmul_dx_tile.h"
#include "ops/cuda/quantized_tile.h"

namespace minigpt4::cuda {

template <Type type>
struct QuantizedUnits {
  static constexpr QuantizedLayout layout = quantized_layout<type>();
  struct Words {
    TileWords<type> tile;
    HeadWords<type> head;
  };
  __device__ static Words load(const DxProduct& p, int row_tile, int unit, int lane) {
    const uint8_t* step =
        p.weights + row_tile * p.row_tile_bytes + int64_t(unit / layout.step_tiles()) * layout.step_bytes();
    const uint8_t* tile = step + layout.head_bytes() + unit % layout.step_tiles() * layout.tile_bytes();
    return {load_tile<type, LoadCached>(tile, lane), load_head<type, LoadCached>(step, lane)};
  }
  static constexpr int pairs = 2;
  template <class Put>
  __device__ static void store(const Words& words, const Put& put) {
    float v[2][4][4];
    tile_values<type>(v, words.tile, words.head);
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        put(8 * (j % 2), 32 * b + 16 * (j / 2), gpu::pack_bf16(v[b][j][0], v[b][j][1]),
            gpu::pack_bf16(v[b][j][2], v[b][j][3]));
      }
    }
  }
};

}  // namespace minigpt4::cuda
