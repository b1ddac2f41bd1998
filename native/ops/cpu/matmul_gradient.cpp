// Gradients of products with weights, cut among threads as the products are.
#include <algorithm>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/product.h"

namespace minigpt4::cpu {

void CpuOps::matmul_dx(float* dx, const Matrix& w, const float* dy, int T, Accumulate accumulate) {
  const auto& packed = static_cast<const PackedMatrix&>(w);
  const QuantizedFormat* format = packed.format();
  constexpr int kPairs = 4;  // that a piece has at most: their values and sums share level 2 with the gradients
  const int64_t groups = padded(w.cols) / kGroup, pairs = (groups + 1) / 2;  // a pair is a block of quantized weights
  for (int t = 0; t < T; t += kRowsAtOnce) {
    const int rows = std::min(kRowsAtOnce, T - t);
    const int at_once = level_.product_rows, tiles = (rows + at_once - 1) / at_once;
    const Cut cut = cut_product(pairs, tiles, 2 * kGroup * w.rows * rows, threads_.threads(), kPairs);
    const int64_t scratch_each = float_scratch(2 * cut.groups, cut.tiles);
    const int64_t tile_row = tile_cols(level_, w.rows);
    const bool make_tiles = rows > 1 || level_.product_depth > 1;
    const float* from = dy + t * w.rows;
    float *tiled = nullptr, *scratch = nullptr;
    const auto carve = [&](Carver carver) {
      tiled = carver.take<float>(make_tiles ? rows * tile_row : 0);
      scratch = carver.take<float>(scratch_each * threads_.threads());
      return carver.size();
    };
    carve(Carver(workspace_.get(carve(Carver()))));
    if (make_tiles) {
      rows_in_pieces(tiles, at_once * w.rows, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin * at_once; i < end * at_once; i += at_once) {
          level_.make_tile(from + i * w.rows, std::min<int>(at_once, rows - int(i)), w.rows, tiled + i * tile_row);
        }
      });
      from = tiled;
    }
    const GradientMatmul m{w.type,
                           format ? format->kind() : 0,
                           format ? format->offset : 0,
                           packed.data(),
                           packed.group_bytes(),
                           from,
                           dx + t * w.cols,
                           w.rows,
                           w.cols,
                           rows,
                           accumulate == Accumulate::yes};
    each_piece(threads_, cut, pairs, tiles, [&](const Piece& piece, int thread) {
      level_.matmul_dx(m, 2 * piece.g0, std::min(2 * piece.g1, groups), piece.i0, piece.i1,
                       scratch + thread * scratch_each);
    });
  }
}

void CpuOps::matmul_dw(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols) {
  constexpr int64_t at_once = 48;  // a multiple of every level's tile
  rows_in_pieces((rows + at_once - 1) / at_once, at_once * cols * T, [&](int64_t begin, int64_t end, int) {
    level_.matmul_dw(dw, dy, x, T, rows, cols, begin * at_once, std::min(end * at_once, rows));
  });
}

void CpuOps::bias_db(float* db, const float* dy, int T, int C) {
  rows_in_pieces(C, T, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < T; ++t) {
      const float* row = dy + t * C;
      for (int64_t c = begin; c < end; ++c) db[c] += row[c];
    }
  });
}

}  // namespace minigpt4::cpu
