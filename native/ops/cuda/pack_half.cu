// F16 and BF16 weights from the file's rows into fragments (half_layout.h), on the host.
#include <cstring>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/half_layout.h"

namespace minigpt4::cuda {

void CudaOps::pack_half(uint8_t* to, const MatrixView& view) {
  const auto* values = static_cast<const uint16_t*>(view.data);
  const int64_t rows = view.rows, cols = view.cols, col_tiles = half_col_tiles(cols);
  std::memset(to, 0, size_t(half_bytes(rows, cols)));
  for (int64_t row = 0; row < rows; ++row) {
    const uint16_t* from = values + row * cols;
    const int64_t g = row % 8, lower = row / 8 % 2;
    uint8_t* tile = to + row / 16 * col_tiles * kHalfTileBytes;
    for (int64_t first = 0; first < cols; first += 8, from += 8) {  // one register of four lanes
      const int64_t fragment = first / 16, j = 2 * (first / 8 % 2) + lower;
      uint8_t* registers = tile + fragment * (kHalfTileBytes / 2) + 64 * g + 4 * j;
      for (int64_t i = 0; i < 8 && first + i < cols; i += 2) {
        std::memcpy(registers + 8 * i, from + i, first + i + 1 < cols ? 4 : 2);
      }
    }
  }
}

}  // namespace minigpt4::cuda
