// How F16 and BF16 weights lie on the device: tiles of 16 rows by 32 columns, which are two fragments a[4] of mma_f16
// (mma_bf16), 512 bytes each: the one of columns 0-15, then that of 16-31; lane l's registers are bytes 16 l … 16 l + 15.
// Register j holds row g + 8 (j % 2), columns 8 (j / 2) + 2q and the next. Row tiles one after the other, rows padded to 16
// and columns to 32 with zeros. F32 weights lie as in the file, row by row, padded to nothing.
#pragma once

#include <cstdint>

namespace minigpt4::cuda {

inline constexpr int kHalfTileCols = 32;
inline constexpr int kHalfTileBytes = 1024;

constexpr int64_t half_col_tiles(int64_t cols) { return (cols + kHalfTileCols - 1) / kHalfTileCols; }
constexpr int64_t half_bytes(int64_t rows, int64_t cols) {
  return (rows + 15) / 16 * half_col_tiles(cols) * kHalfTileBytes;
}

}  // namespace minigpt4::cuda
