// Products with weights: activations are brought into tiles once, then threads take pieces of a few groups of outputs.
#include <algorithm>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/product.h"

namespace minigpt4::cpu {

void CpuOps::interleave_tiles(const float* x, int T, int64_t cols, float* to) {
  constexpr int64_t line = 16;  // values of a cache line: rows may lie a power of two apart
  const int tile_rows = level_.float_rows, tiles = (T + tile_rows - 1) / tile_rows;
  rows_in_pieces(tiles, tile_rows * cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t at = tile * tile_rows * cols;
      const int rows = std::min<int>(tile_rows, T - int(tile) * tile_rows);
      for (int64_t k = 0; k < cols; k += line) {
        const int64_t stop = std::min(k + line, cols);
        for (int r = 0; r < rows; ++r) {
          for (int64_t i = k; i < stop; ++i) to[at + i * rows + r] = x[at + r * cols + i];
        }
      }
    }
  });
}

void CpuOps::matmul(float* y, const Matrix& w, const float* x, const float* bias, int T, Accumulate accumulate) {
  const auto& packed = static_cast<const PackedMatrix&>(w);
  for (int t = 0; t < T; t += kRowsAtOnce) {
    const int rows = std::min(kRowsAtOnce, T - t);
    float* to = y + int64_t(t) * w.rows;
    const float* from = x + int64_t(t) * w.cols;
    if (packed.format()) {
      matmul_quantized(to, packed, from, bias, rows, accumulate == Accumulate::yes);
    } else {
      matmul_float(to, packed, from, bias, rows, accumulate == Accumulate::yes);
    }
  }
}

void CpuOps::matmul_float(float* y, const PackedMatrix& w, const float* x, const float* bias, int T, bool accumulate) {
  const int tile_rows = level_.float_rows, tiles = (T + tile_rows - 1) / tile_rows;
  const Cut cut = cut_product(w.groups(), tiles, w.cols * kGroup * T, threads_.threads());
  const int64_t scratch_each = float_scratch(cut.groups, cut.tiles);
  float *interleaved = nullptr, *scratch = nullptr;
  const auto carve = [&](Carver carver) {
    interleaved = carver.take<float>(T > 1 ? T * w.cols : 0);
    scratch = carver.take<float>(scratch_each * threads_.threads());
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  if (T > 1) interleave_tiles(x, T, w.cols, interleaved);
  const FloatMatmul m{w.type, w.data(), T > 1 ? interleaved : x, bias, y, w.rows, w.cols, T, accumulate};
  each_piece(threads_, cut, w.groups(), tiles, [&](int64_t g0, int64_t g1, int i0, int i1, int thread) {
    level_.matmul_float(m, g0, g1, i0, i1, scratch + thread * scratch_each);
  });
}

void CpuOps::matmul_quantized(float* y, const PackedMatrix& w, const float* x, const float* bias, int T,
                              bool accumulate) {
  const QuantizedFormat& format = *w.format();
  const int tile_rows = level_.quantized_rows, tiles = (T + tile_rows - 1) / tile_rows, sums = format.sums();
  const int64_t blocks = w.cols / 32;
  int8_t* q = nullptr;
  float *d = nullptr, *sum = nullptr;
  int32_t* offset = nullptr;
  const auto carve = [&](Carver carver) {
    q = carver.take<int8_t>(T * w.cols);
    d = carver.take<float>(T * blocks);
    sum = carver.take<float>(T * blocks * sums);
    offset = carver.take<int32_t>(T * blocks * sums);
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  rows_in_pieces(T, w.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t tile = t / tile_rows * tile_rows, rows = std::min<int64_t>(tile_rows, T - tile);
      const int64_t at = tile * blocks + t - tile;  // the row's first block; the next one is `rows` further
      level_.quantize_row({x + t * w.cols, w.cols, format.offset, sums, rows, q + at * 32, d + at, offset + at * sums,
                           sum + at * sums});
    }
  });
  const QuantizedMatmul m{
      format.kind(), w.data(), w.group_bytes(), format.code_bytes(w.cols), q, d, offset, sum, bias, y, w.rows,
      w.cols,        T,        accumulate};
  const Cut cut = cut_product(w.groups(), tiles, w.cols * kGroup * T / 4, threads_.threads());
  each_piece(threads_, cut, w.groups(), tiles,
             [&](int64_t g0, int64_t g1, int i0, int i1, int) { level_.matmul_quantized(m, g0, g1, i0, i1); });
}

void CpuOps::embed(float* y, const Matrix& w, const int32_t* ids, int T) {
  const auto& packed = static_cast<const PackedMatrix&>(w);
  rows_in_pieces(T, w.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) packed.unpack_row(ids[t], y + t * w.cols);
  });
}

}  // namespace minigpt4::cpu
