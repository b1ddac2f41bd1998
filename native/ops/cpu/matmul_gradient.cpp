// Gradients of products with weights, cut among threads as the products are.
#include <algorithm>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/product.h"

namespace minigpt4::cpu {

void CpuOps::matmul_dx(float* dx, const Matrix& w, const float* dy, int T, Accumulate accumulate) {
  const auto& packed = static_cast<const PackedMatrix&>(w);
  const QuantizedFormat* format = packed.format();
  const int64_t groups = padded(w.cols) / kGroup, pairs = (groups + 1) / 2;  // a pair is a block of quantized weights
  for (int t = 0; t < T; t += kRowsAtOnce) {
    const int rows = std::min(kRowsAtOnce, T - t);
    const int tiles = (rows + level_.float_rows - 1) / level_.float_rows;
    const Cut cut = cut_product(pairs, tiles, 2 * kGroup * w.rows * rows, threads_.threads());
    const int64_t scratch_each = float_scratch(2 * cut.groups, cut.tiles);
    const float* from = dy + t * w.rows;
    float *interleaved = nullptr, *scratch = nullptr;
    const auto carve = [&](Carver carver) {
      interleaved = carver.take<float>(rows > 1 ? rows * w.rows : 0);
      scratch = carver.take<float>(scratch_each * threads_.threads());
      return carver.size();
    };
    carve(Carver(workspace_.get(carve(Carver()))));
    if (rows > 1) {
      rows_in_pieces(tiles, level_.float_rows * w.rows, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin * level_.float_rows; i < end * level_.float_rows; i += level_.float_rows) {
          interleave_tile(from + i * w.rows, std::min<int>(level_.float_rows, rows - int(i)), w.rows,
                          interleaved + i * w.rows);
        }
      });
      from = interleaved;
    }
    const GradientMatmul m{w.type,
                           format ? format->kind() : 0,
                           format ? format->offset : 0,
                           packed.data(),
                           packed.group_bytes(),
                           format ? format->code_bytes(w.cols) : 0,
                           from,
                           dx + t * w.cols,
                           w.rows,
                           w.cols,
                           rows,
                           accumulate == Accumulate::yes};
    each_piece(threads_, cut, pairs, tiles, [&](int64_t g0, int64_t g1, int i0, int i1, int thread) {
      level_.matmul_dx(m, 2 * g0, std::min(2 * g1, groups), i0, i1, scratch + thread * scratch_each);
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
