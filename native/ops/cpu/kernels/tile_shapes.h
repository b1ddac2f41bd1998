// How the matrix unit's eight tiles are cut: the 64 bytes that its configuration is loaded from (Intel's SDM, palette 1).
#pragma once

#include <cstdint>

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kTiles = 8, kTileRows = 16, kTileRowBytes = 64;

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0 to 7; the others stay 0
  uint8_t rows[16] = {};

  void set(int tile, int rows_of, int bytes_a_row) {
    rows[tile] = uint8_t(rows_of);
    row_bytes[tile] = uint16_t(bytes_a_row);
  }
};
static_assert(sizeof(TileShapes) == 64);

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
