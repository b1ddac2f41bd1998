// Weights on their way to the device: rows are brought into the device's layout piece by piece, straight into pinned memory,
// so that there is no second copy of a weight on the host.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/thread_pool.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/half_layout.h"
#include "ops/cuda/quantized_layout.h"
#include "ops/cuda/staging.h"

namespace minigpt4::cuda {

namespace {

/// Rows that lie together in every packed layout.
constexpr int64_t kRowTile = kTileRows;
static_assert(half_bytes(2 * kRowTile, kHalfTileCols) == 2 * half_bytes(kRowTile, kHalfTileCols));

/// Bytes on the device of a tile of rows of so many columns, of a packed type.
int64_t row_tile_bytes(Type type, int64_t cols) {
  if (!is_quantized(type)) return half_bytes(kRowTile, cols);
  return for_quantized(type, [&](auto tag) { return quantized_layout<tag()>().row_tile_bytes(cols); });
}

int64_t row_tiles(int64_t rows) { return (rows + kRowTile - 1) / kRowTile; }

bool known(Type type) {
  switch (type) {
    case Type::F32:
    case Type::F16:
    case Type::BF16:
    case Type::Q4_0:
    case Type::Q4_1:
    case Type::Q5_0:
    case Type::Q5_1:
    case Type::Q8_0:
    case Type::Q2_K:
    case Type::Q3_K:
    case Type::Q4_K:
    case Type::Q5_K:
    case Type::Q6_K:
      return true;
  }
  return false;
}

}  // namespace

size_t CudaOps::matrix_bytes(Type type, int64_t rows, int64_t cols) const {
  if (type == Type::F32) return size_t(rows) * row_bytes(type, uint64_t(cols));
  return size_t(row_tiles(rows) * row_tile_bytes(type, cols));
}

std::unique_ptr<Matrix> CudaOps::matrix(const MatrixView& view, const char* owner) {
  if (!known(view.type)) {
    fail(code::unsupported, "a matrix of ", owner, " has type number ", uint32_t(view.type),
         ", which CUDA devices have no layout for");
  }
  // the kernels number rows and columns with 32 bits
  constexpr int64_t most = std::numeric_limits<int32_t>::max() - 4096;
  if (view.rows < 1 || view.cols < 1 || view.rows > most || view.cols > most) {
    fail(code::shape, "a matrix of ", owner, " has ", view.rows, " rows of ", view.cols, " values; expected 1 to ",
         most, " of each");
  }
  const size_t file_row = row_bytes(view.type, uint64_t(view.cols));  // also sees to whole blocks
  auto made = std::make_unique<DeviceMatrix>();
  made->type = view.type;
  made->rows = view.rows;
  made->cols = view.cols;
  made->bytes = matrix_bytes(view.type, view.rows, view.cols);
  made->memory = memory_;
  made->data = static_cast<uint8_t*>(memory_->take(made->bytes, owner));
  if (view.type == Type::F32) {
    upload(made->data, view.data, made->bytes);
    return made;
  }

  const int64_t tiles = row_tiles(view.rows), tile = row_tile_bytes(view.type, view.cols);
  if (!packers_) packers_ = std::make_unique<ThreadPool>();
  const int64_t together = std::max<int64_t>(1, int64_t(Staging::kPiece) / tile);
  for (int64_t first = 0; first < tiles; first += together) {
    const int64_t count = std::min(together, tiles - first);
    uint8_t* piece = staging_->next(size_t(count * tile));
    packers_->parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
      const int64_t row = (first + begin) * kRowTile;
      const MatrixView rows{view.type, std::min((end - begin) * kRowTile, view.rows - row), view.cols,
                            static_cast<const uint8_t*>(view.data) + size_t(row) * file_row};
      uint8_t* to = piece + begin * tile;
      is_quantized(view.type) ? pack_quantized(to, rows) : pack_half(to, rows);
    });
    staging_->send(made->data + first * tile, size_t(count * tile));
  }
  return made;
}

void CudaOps::refill(Matrix& w, const float* values) {
  if (w.type != Type::F32) {
    fail(code::argument, "new values are expected for a matrix of type F32, found one of type ", name(w.type));
  }
  copy(static_cast<DeviceMatrix&>(w).data, values, w.bytes);
}

}  // namespace minigpt4::cuda
