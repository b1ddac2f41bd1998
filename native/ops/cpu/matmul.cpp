// Products with weights: rows are made, rounded and brought into tiles once, for every weight that reads them; then
// threads take pieces of a few groups of outputs, of all these weights in one go.
#include <algorithm>
#include <variant>
#include <vector>

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

/// One of several products, which threads take pieces of as if they were one.
struct CpuOps::Share {
  Cut cut;
  int64_t first;  // of all products' pieces
  int64_t groups;
  int tiles;
  std::variant<FloatMatmul, QuantizedMatmul> product;
};

void CpuOps::products(std::span<const Product> of, const Rows& rows, int T) {
  for (int t = 0; t < T; t += kRowsAtOnce) {
    const PreparedRows prepared = prepare(of, rows, t, std::min(kRowsAtOnce, T - t));
    std::vector<Share> shares;
    int64_t pieces = 0;
    for (const Product& product : of) {
      shares.push_back(share_of(product, prepared, t));
      shares.back().first = pieces;
      pieces += shares.back().cut.pieces();
    }
    runs_.start(pieces);
    threads_.parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int thread) {
      float* const scratch = prepared.scratch + thread * prepared.scratch_each;
      for (int64_t turn = begin; turn < end; ++turn) {
        const int64_t piece = runs_.take(thread);
        size_t i = shares.size() - 1;
        while (shares[i].first > piece) --i;
        compute(shares[i], piece - shares[i].first, scratch);
      }
    });
  }
}

int CpuOps::tiles_of(const PackedMatrix& w, int T) const {
  const int rows = w.format() ? level_.quantized_rows : level_.product_rows;
  return (T + rows - 1) / rows;
}

Cut CpuOps::cut_of(const PackedMatrix& w, int T) const {
  constexpr int few_rows_groups = 4;  // as many as matvec_quantized takes of long ones at once
  const bool quantized = w.format();
  const int tiles = tiles_of(w, T);
  const int64_t products = w.cols * kGroup * T / (quantized ? 4 : 1);  // four of bytes take as long as one of floats
  const int most = !quantized ? level_.product_groups : tiles > 1 ? level_.quantized_groups : few_rows_groups;
  return cut_product(w.groups(), tiles, products, threads_.threads(), most);
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
  // Rows of one tile lie in the same lines of the cache: threads that each round some of them would wait for one another.
  const bool by_tiles = !prepared.kinds.empty() && T >= 2 * level_.quantized_rows * threads_.threads();
  const int at_once = tiled ? tile_rows : by_tiles ? level_.quantized_rows : 1;
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

CpuOps::Share CpuOps::share_of(const Product& product, const PreparedRows& rows, int first) const {
  const PackedMatrix& w = packed(product);
  const int T = rows.T;
  float* const y = product.y + int64_t(first) * w.rows;
  const bool accumulate = product.accumulate == Accumulate::yes;
  Share share{cut_of(w, T), 0, w.groups(), tiles_of(w, T), {}};
  if (!w.format()) {
    share.product = FloatMatmul{w.type, w.data(), rows.x, product.bias, y, w.rows, w.cols, T, accumulate};
    return share;
  }
  const QuantizedFormat& format = *w.format();
  const RoundedRows& x =
      *std::find_if(rows.kinds.begin(), rows.kinds.end(), [&](const RoundedRows& kind) { return kind.serves(format); });
  share.product = QuantizedMatmul{format.kind(), format.offset, w.data(), w.group_bytes(), x.q,    x.d, x.offset_sum,
                                  x.sum,         product.bias,  y,        w.rows,          w.cols, T,   accumulate};
  return share;
}

void CpuOps::compute(const Share& share, int64_t piece, float* scratch) const {
  const auto [g0, g1, i0, i1] = piece_at(share.cut, share.groups, share.tiles, piece);
  if (const auto* floats = std::get_if<FloatMatmul>(&share.product)) {
    level_.matmul_float(*floats, g0, g1, i0, i1, scratch);
  } else {
    level_.matmul_quantized(std::get<QuantizedMatmul>(share.product), g0, g1, i0, i1, scratch);
  }
}

void CpuOps::embed(float* y, const Matrix& w, const int32_t* ids, int T) {
  const auto& packed = static_cast<const PackedMatrix&>(w);
  rows_in_pieces(T, w.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) packed.unpack_row(ids[t], y + t * w.cols);
  });
}

}  // namespace minigpt4::cpu
