// Products with weights: activations are brought into tiles once, then threads take pieces of a few groups of outputs.
#include <algorithm>

#include "core/error.h"
#include "ops/cpu/cpu_ops.h"

namespace minigpt4::cpu {

namespace {

// Rows that are multiplied in one go: a multiple of every level's tile, so that sums and the activations of one chain
// stay in a core's level 2 cache, and many enough that reading the weights once for them is cheap.
constexpr int kRowsAtOnce = 264;

/// How a product is cut: pieces of `groups` groups and `tiles` tiles.
struct Cut {
  int64_t groups, group_pieces;
  int tiles, tile_pieces;
  int64_t pieces() const { return group_pieces * tile_pieces; }
};

Cut cut_product(int64_t groups, int tiles, int64_t products_a_group, int threads) {
  constexpr int64_t worth_a_piece = 1 << 17;  // multiply-adds, some microseconds
  constexpr int64_t most_groups = 4;          // whose weights and sums share level 2 with the activations
  const int64_t wanted = int64_t(threads) * 4;
  const int64_t least = (worth_a_piece + products_a_group - 1) / products_a_group;
  Cut cut{std::min(groups, std::max(least, std::clamp<int64_t>(groups / wanted, 1, most_groups))), 0, tiles, 1};
  cut.group_pieces = (groups + cut.groups - 1) / cut.groups;
  if (threads > 1 && cut.group_pieces < wanted && least <= 1 && tiles > 1) {  // few outputs, many rows
    const int parts = int(std::min<int64_t>(tiles, (wanted + cut.group_pieces - 1) / cut.group_pieces));
    cut.tiles = (tiles + parts - 1) / parts;
    cut.tile_pieces = (tiles + cut.tiles - 1) / cut.tiles;
  }
  return cut;
}

/// body(g0, g1, i0, i1, thread) for every piece.
template <class Body>
void each_piece(ThreadPool& threads, const Cut& cut, int64_t groups, int tiles, Body&& body) {
  threads.parallel_for(cut.pieces(), 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t g = piece / cut.tile_pieces * cut.groups;
      const int i = int(piece % cut.tile_pieces) * cut.tiles;
      body(g, std::min(g + cut.groups, groups), i, std::min(i + cut.tiles, tiles), thread);
    }
  });
}

/// Rows of x[rows, cols] side by side: to[k · rows + r].
void interleave_rows(const float* x, int rows, int64_t cols, float* to) {
  constexpr int64_t line = 16;  // values of a cache line: rows may lie a power of two apart
  for (int64_t k = 0; k < cols; k += line) {
    const int64_t end = std::min(k + line, cols);
    for (int r = 0; r < rows; ++r) {
      for (int64_t i = k; i < end; ++i) to[i * rows + r] = x[r * cols + i];
    }
  }
}

}  // namespace

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
  if (T > 1) {
    rows_in_pieces(tiles, tile_rows * w.cols, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = i * tile_rows * w.cols;
        interleave_rows(x + at, std::min<int>(tile_rows, T - int(i) * tile_rows), w.cols, interleaved + at);
      }
    });
  }
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
