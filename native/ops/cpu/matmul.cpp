// Products with weights: rows are made, rounded and brought into tiles once, for every weight that reads them; then
// threads take pieces of a few groups of outputs.
#include <algorithm>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/product.h"

namespace minigpt4::cpu {

namespace {

const PackedMatrix& packed(const Ops::Product& product) { return static_cast<const PackedMatrix&>(*product.w); }

/// Row t in the form asked for: where it lies already, or made at `to`.
const float* make_row(const Level& level, const Ops::Rows& rows, int64_t t, int64_t cols, float* to) {
  using enum Ops::Rows::Form;
  const float* x = rows.x + t * cols;
  switch (rows.form) {
    case plain:
      return x;
    case rms_norm:
      level.rms_norm(to, x, rows.weight, int(cols), rows.eps);
      return to;
    case layer_norm:
      level.layer_norm(to, x, rows.weight, rows.bias, int(cols), rows.eps);
      return to;
    case gelu:
      level.gelu(to, x, cols);
      return to;
    case silu_mul:
      level.silu_mul(to, x, rows.up + t * cols, cols);
      return to;
  }
  return nullptr;  // no other form
}

}  // namespace

/// A piece's rows as weights of one kind of blocks read them: planes as in QuantizedMatmul.
struct CpuOps::RoundedRows {
  int offset, sums;  // of the weights' format
  int8_t* q;
  float *d, *sum;
  int32_t* offset_sum;

  bool serves(const QuantizedFormat& format) const { return offset == format.offset && sums == format.sums(); }
};

/// What a piece's rows have become.
struct CpuOps::PreparedRows {
  int T = 0;
  const float* x = nullptr;  // for float weights: tiles as in FloatMatmul
  float* scratch = nullptr;  // [threads][scratch_each]
  int64_t scratch_each = 0;
  std::vector<RoundedRows> kinds;  // for the others
};

void CpuOps::products(std::span<const Product> of, const Rows& rows, int T) {
  for (int t = 0; t < T; t += kRowsAtOnce) {
    const PreparedRows prepared = prepare(of, rows, t, std::min(kRowsAtOnce, T - t));
    for (const Product& product : of) {
      const PackedMatrix& w = packed(product);
      float* y = product.y + int64_t(t) * w.rows;
      const bool accumulate = product.accumulate == Accumulate::yes;
      if (w.format()) {
        matmul_quantized(y, w, prepared, product.bias, accumulate);
      } else {
        matmul_float(y, w, prepared, product.bias, accumulate);
      }
    }
  }
}

int CpuOps::tiles_of(const PackedMatrix& w, int T) const {
  const int rows = w.format() ? level_.quantized_rows : level_.product_rows;
  return (T + rows - 1) / rows;
}

Cut CpuOps::cut_of(const PackedMatrix& w, int T) const {
  constexpr int64_t quantized_groups = 4;  // whose weights share level 2 with the activations
  const bool quantized = w.format();
  const int64_t products = w.cols * kGroup * T / (quantized ? 4 : 1);  // four of bytes take as long as one of floats
  return cut_product(w.groups(), tiles_of(w, T), products, threads_.threads(),
                     quantized ? quantized_groups : level_.product_groups);
}

CpuOps::PreparedRows CpuOps::prepare(std::span<const Product> of, const Rows& rows, int first, int T) {
  const int64_t cols = of.front().w->cols, blocks = cols / 32;
  const int tile_rows = level_.product_rows;
  const int64_t tile_row = tile_cols(level_, cols);
  PreparedRows prepared;
  prepared.T = T;
  bool floats = false;
  for (const Product& product : of) {
    const PackedMatrix& w = packed(product);
    const Cut cut = cut_of(w, T);
    prepared.scratch_each = std::max(
        prepared.scratch_each, w.format() ? level_.quantized_scratch(cut.tiles) : float_scratch(cut.groups, cut.tiles));
    if (const QuantizedFormat* format = w.format()) {
      const auto serves = [&](const RoundedRows& kind) { return kind.serves(*format); };
      if (std::any_of(prepared.kinds.begin(), prepared.kinds.end(), serves)) continue;
      prepared.kinds.push_back({format->offset, format->sums(), nullptr, nullptr, nullptr, nullptr});
    } else {
      floats = true;
    }
  }

  const bool made = rows.form != Rows::Form::plain;
  const bool tiled = floats && (T > 1 || level_.product_depth > 1);
  float *rows_made = nullptr, *tiles = nullptr;
  const auto carve = [&](Carver carver) {
    rows_made = carver.take<float>(made ? T * cols : 0);
    tiles = carver.take<float>(tiled ? T * tile_row : 0);
    prepared.scratch = carver.take<float>(prepared.scratch_each * threads_.threads());
    for (RoundedRows& kind : prepared.kinds) {
      kind.q = carver.take<int8_t>(T * cols);
      kind.d = carver.take<float>(T * blocks);
      kind.sum = carver.take<float>(T * blocks * kind.sums);
      kind.offset_sum = carver.take<int32_t>(T * blocks * kind.sums);
    }
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  const float* as_they_are = made ? rows_made : rows.x + first * cols;
  prepared.x = tiled ? tiles : as_they_are;
  if (!made && !tiled && prepared.kinds.empty()) return prepared;

  const auto round = [&](const float* x, int64_t t) {
    const int64_t tile = t / level_.quantized_rows * level_.quantized_rows;
    const int64_t stride = std::min<int64_t>(level_.quantized_rows, T - tile);
    const int64_t at = tile * blocks;  // the tile's first block
    for (const RoundedRows& to : prepared.kinds) {
      level_.quantize_row({x, cols, to.offset, to.sums, stride, int(t - tile), to.q + at * 32, to.d + at,
                           to.offset_sum + at * to.sums, to.sum + at * to.sums});
    }
  };
  const int at_once = tiled ? tile_rows : 1;
  rows_in_pieces((T + at_once - 1) / at_once, at_once * cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin * at_once; t < std::min<int64_t>(end * at_once, T); t += at_once) {
      const int n = int(std::min<int64_t>(at_once, T - t));
      for (int64_t row = t; row < t + n; ++row) {
        round(make_row(level_, rows, first + row, cols, rows_made + row * cols), row);
      }
      if (tiled) level_.make_tile(as_they_are + t * cols, n, cols, tiles + t * tile_row);
    }
  });
  return prepared;
}

void CpuOps::matmul_float(float* y, const PackedMatrix& w, const PreparedRows& rows, const float* bias,
                          bool accumulate) {
  const int T = rows.T;
  const Cut cut = cut_of(w, T);
  const FloatMatmul m{w.type, w.data(), rows.x, bias, y, w.rows, w.cols, T, accumulate};
  each_piece(threads_, cut, w.groups(), tiles_of(w, T), [&](int64_t g0, int64_t g1, int i0, int i1, int thread) {
    level_.matmul_float(m, g0, g1, i0, i1, rows.scratch + thread * rows.scratch_each);
  });
}

void CpuOps::matmul_quantized(float* y, const PackedMatrix& w, const PreparedRows& rows, const float* bias,
                              bool accumulate) {
  const QuantizedFormat& format = *w.format();
  const int T = rows.T;
  const RoundedRows& x =
      *std::find_if(rows.kinds.begin(), rows.kinds.end(), [&](const RoundedRows& kind) { return kind.serves(format); });
  const QuantizedMatmul m{format.kind(),
                          format.offset,
                          w.data(),
                          w.group_bytes(),
                          format.code_bytes(w.cols),
                          x.q,
                          x.d,
                          x.offset_sum,
                          x.sum,
                          bias,
                          y,
                          w.rows,
                          w.cols,
                          T,
                          accumulate};
  each_piece(threads_, cut_of(w, T), w.groups(), tiles_of(w, T),
             [&](int64_t g0, int64_t g1, int i0, int i1, int thread) {
               level_.matmul_quantized(m, g0, g1, i0, i1, rows.scratch + thread * rows.scratch_each);
             });
}

void CpuOps::embed(float* y, const Matrix& w, const int32_t* ids, int T) {
  const auto& packed = static_cast<const PackedMatrix&>(w);
  rows_in_pieces(T, w.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) packed.unpack_row(ids[t], y + t * w.cols);
  });
}

}  // namespace minigpt4::cpu
