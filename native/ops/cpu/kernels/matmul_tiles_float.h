// Products with float weights, and matmul_dx, on the matrix unit, which multiplies bf16 and adds float32. A float32 is cut
// into two bf16: high, the nearest, and low, what is left of it, cut off (F16 is the two exactly, BF16 is its high half).
// Then
//
//   x · w = xh · wl + xh · wh + xl · wh      (BF16 weights: xh · w + xl · w)
//
// is short of the whole product by at most 2^-16 of it for each of xl · wl, what xl lost and (F32) what wl lost: 3 · 2^-16
// with F32 weights, 2 · 2^-16 with F16, 2^-16 with BF16. For each 32 values of k these parts are added to the sum in this
// order, as tile_dot_bf16 says, whatever is computed beside it: a row's bits depend on nothing but the row.
//
// The unit takes what is subnormal for zero: a float32 below 2^-126, and low halves below it, which is an error of at most
// 2^-126 of the other factor. What is not a number makes its output one that is not; an infinite x or w makes it infinite
// or not a number: high stops at the largest bf16, and low is then infinite. No other row or output sees it.
//
// Counted per 32 rows x 32 outputs x 32 values: 12 products of tiles (BF16: 8) of 16 cycles each, 8 (6) loads of tiles, 128
// (96) lines: 192 cycles, of which loads from level 2 take about two thirds. So 3 of the unit's bf16 operations for each
// that is asked for (BF16: 2): on a core with 2.6 TFLOPS 0.87 (1.3) at best, where fused multiply-adds have 0.18.
// Activations are halved once a product, weights once a piece, about 270 instructions for 16 outputs x 32 values, which is
// 13 % of the work at 257 rows.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// Values of k in a tile; products are padded with zeros to a multiple.
constexpr int kTileDepth = 32;
static_assert(kChain % kTileDepth == 0);

struct Bf16Halves {
  F high, low;  // to be stored as bf16, which cuts off low
};
inline Bf16Halves halves_of(F x) {
  constexpr float most = 0x1.fep127f;  // the largest bf16; a NaN passes both comparisons
  const F high = round_to_bf16(max_of(set1(-most), min_of(set1(most), x)));
  return {high, sub(x, high)};
}

/// A tile of activations: to[cols / 32][rows][high 32, low 32] bf16, which are the places of the row's floats.
void make_bf16_tile(const float* x, int rows, int64_t cols, float* to) {
  uint16_t* at = reinterpret_cast<uint16_t*>(to);
  for (int64_t k = 0; k < cols; k += kTileDepth) {
    for (int r = 0; r < rows; ++r, at += 2 * kTileDepth) {
      for (int i = 0; i < kTileDepth; i += kLanes) {
        const int used = lanes_left(cols, k + i);
        const Bf16Halves halves = halves_of(used == 0 ? zero() : load_part(x + r * cols + k + i, used));
        store_bf16(at + i, halves.high);
        store_bf16(at + kTileDepth + i, halves.low);
      }
    }
  }
}

/// Weights [k][16] to tiles of [k / 2][16][2] bf16. Those of a type that is its high half: a tile of 32 values of k after
/// the other, 64 bytes a row; others: rows of 128 bytes, high and then low, so that float32 may be replaced in its place.
template <class W>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<Bf16> = true;

template <class W>
inline void make_weight_tiles(const W* w, int64_t k, uint16_t* to) {
  const int64_t pairs = (k + kTileDepth - 1) / kTileDepth * (kTileDepth / 2);
  for (int64_t j = 0; j < pairs; ++j) {
    // the chunk behind this one: rows of a group are 16 values, too few in a chunk for the processor to see where they go
    __builtin_prefetch(w + 16 * kChain + 32 * j, 0, 2);
    if constexpr (sizeof(W) == 4) __builtin_prefetch(w + 16 * kChain + 32 * j + 16, 0, 2);
    F even[kParts], odd[kParts];  // all read before any is written
    for (int p = 0; p < kParts; ++p) {
      even[p] = 2 * j < k ? load_weight(w + 32 * j + p * kLanes) : zero();
      odd[p] = 2 * j + 1 < k ? load_weight(w + 32 * j + 16 + p * kLanes) : zero();
    }
    for (int p = 0; p < kParts; ++p) {
      if constexpr (is_bf16<W>) {
        store_bf16_pairs(to + 32 * j + 2 * kLanes * p, even[p], odd[p]);
      } else {
        const Bf16Halves first = halves_of(even[p]), second = halves_of(odd[p]);
        store_bf16_pairs(to + 64 * j + 2 * kLanes * p, first.high, second.high);
        store_bf16_pairs(to + 64 * j + 32 + 2 * kLanes * p, first.low, second.low);
      }
    }
  }
}

/// Tiles 0 to 3 are sums (2 · tile of rows + group), 4 and 5 weights of two groups, 6 and 7 activations of two tiles of
/// rows.
template <int tiles, int groups>
inline void dot_all() {
  tile_dot_bf16<0, 6, 4>();
  if constexpr (groups > 1) tile_dot_bf16<1, 6, 5>();
  if constexpr (tiles > 1) tile_dot_bf16<2, 7, 4>();
  if constexpr (tiles > 1 && groups > 1) tile_dot_bf16<3, 7, 5>();
}
template <int tiles, int groups, class Body>
inline void each_sum(const Body& body) {
  body.template operator()<0>(0, 0);
  if constexpr (groups > 1) body.template operator()<1>(0, 1);
  if constexpr (tiles > 1) body.template operator()<2>(1, 0);
  if constexpr (tiles > 1 && groups > 1) body.template operator()<3>(1, 1);
}

/// One or two tiles of rows times one or two groups, `depth` values of k: sums[row · width + output], continued if add_to.
/// x: the two tiles of activations, with `rows` rows each; w: the two groups' tiles.
template <bool exact, int tiles, int groups>
[[gnu::noinline]] void multiply_tiles(const float* const* x, const int* rows, const float* const* w, int64_t depth,
                                      float* sums, int64_t width, bool add_to) {
  constexpr int64_t weight_row = exact ? 64 : 128, weight_tile = weight_row * kTileDepth / 2, x_row = 128;
  const auto at = [&](int i, int g) { return sums + i * kTileRows * width + 16 * g; };
  if (add_to) {
    each_sum<tiles, groups>([&]<int sum>(int i, int g) { tile_load<sum>(at(i, g), width * int64_t(sizeof(float))); });
  } else {
    each_sum<tiles, groups>([&]<int sum>(int, int) { tile_zero<sum>(); });
  }
  const uint8_t* x0 = reinterpret_cast<const uint8_t*>(x[0]);
  const uint8_t* x1 = tiles > 1 ? reinterpret_cast<const uint8_t*>(x[1]) : x0;
  const uint8_t* w0 = reinterpret_cast<const uint8_t*>(w[0]);
  const uint8_t* w1 = groups > 1 ? reinterpret_cast<const uint8_t*>(w[1]) : w0;
  const int64_t step0 = rows[0] * x_row, step1 = tiles > 1 ? rows[1] * x_row : 0;
  for (int64_t k = 0; k < depth; k += kTileDepth) {
    if constexpr (!exact) {
      tile_load<4>(w0 + 64, weight_row);
      if constexpr (groups > 1) tile_load<5>(w1 + 64, weight_row);
    } else {
      tile_load<4>(w0, weight_row);
      if constexpr (groups > 1) tile_load<5>(w1, weight_row);
    }
    tile_load<6>(x0, x_row);
    if constexpr (tiles > 1) tile_load<7>(x1, x_row);
    dot_all<tiles, groups>();
    if constexpr (!exact) {
      tile_load<4>(w0, weight_row);
      if constexpr (groups > 1) tile_load<5>(w1, weight_row);
      dot_all<tiles, groups>();
    }
    tile_load<6>(x0 + 64, x_row);
    if constexpr (tiles > 1) tile_load<7>(x1 + 64, x_row);
    dot_all<tiles, groups>();
    x0 += step0, x1 += step1, w0 += weight_tile, w1 += weight_tile;
  }
  each_sum<tiles, groups>([&]<int sum>(int i, int g) { tile_store<sum>(at(i, g), width * int64_t(sizeof(float))); });
}

/// A product's rows [.., T) in tiles of activations as make_bf16_tile makes them; sums come to y as in finish_row.
struct TiledRows {
  const float* x;
  const float* bias;
  float* y;
  int64_t depth, outputs;  // values of a row of x and of y
  int T;
  bool accumulate;
};

/// What products differ in is bring(k0, k, to): weights k0 … k0 + k of all groups, those of group g at
/// to + (g - g0) · 16 kChain, as make_weight_tiles has them.
template <bool exact, class Bring>
inline void multiply_rows(const TiledRows& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch,
                          const Bring& bring) {
  const int64_t groups = g1 - g0, width = 16 * groups;
  const int64_t padded_depth = (m.depth + kTileDepth - 1) / kTileDepth * kTileDepth;
  float* const weights = scratch;                          // [groups][kChain][16]
  float* const sums = scratch + groups * kChain * kGroup;  // [tiles][16][width]
  const auto rows_of = [&](int i) { return m.T - i * kTileRows < kTileRows ? m.T - i * kTileRows : kTileRows; };
  TilesInUse in_use;
  for (int64_t k0 = 0; k0 < m.depth; k0 += kChain) {
    const int64_t k = m.depth - k0 < kChain ? m.depth - k0 : kChain;
    bring(k0, k, weights);
    for (int i = i0; i < i1; i += 2) {
      const int tiles = i1 - i < 2 ? 1 : 2;
      const int rows[2] = {rows_of(i), tiles > 1 ? rows_of(i + 1) : 0};
      in_use.shape(rows[0], rows[1], [&](TileShapes& shapes) {
        for (int t = 0; t < 2 * tiles; ++t) shapes.set(t, rows[t / 2], 64);
        for (int t = 4; t < 6; ++t) shapes.set(t, kTileRows, 64);
        for (int t = 0; t < tiles; ++t) shapes.set(6 + t, rows[t], 64);
      });
      const float* x[2];
      for (int t = 0; t < tiles; ++t) x[t] = m.x + int64_t(i + t) * kTileRows * padded_depth + k0 * rows[t];
      for (int64_t g = 0; g < groups; g += 2) {
        const float* const w[2] = {weights + g * kChain * kGroup, weights + (g + 1) * kChain * kGroup};
        float* const to = sums + (i - i0) * kTileRows * width + 16 * g;
        const auto multiply = [&]<int tiles_here, int groups_here>() {
          multiply_tiles<exact, tiles_here, groups_here>(x, rows, w, k, to, width, k0 > 0);
        };
        if (g + 1 < groups) {
          tiles > 1 ? multiply.template operator()<2, 2>() : multiply.template operator()<1, 2>();
        } else {
          tiles > 1 ? multiply.template operator()<2, 1>() : multiply.template operator()<1, 1>();
        }
      }
    }
  }
  for (int i = i0; i < i1; ++i) {
    for (int r = 0; r < rows_of(i); ++r) {
      finish_row(m.y + (int64_t(i) * kTileRows + r) * m.outputs, sums + ((i - i0) * kTileRows + r) * width, m.bias,
                 m.accumulate, m.outputs, g0 * kGroup, groups);
    }
  }
}

template <class W>
void matmul_float_tiles_of(const FloatMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  const TiledRows rows{m.x, m.bias, m.y, m.cols, m.rows, m.T, m.accumulate};
  const W* const all = static_cast<const W*>(m.w);
  // One or two tiles of rows are multiplied at once with two groups: the fewer weights between, the nearer they are.
  const int64_t at_once = i1 - i0 <= 2 ? 2 : g1 - g0;
  for (int64_t first = g0; first < g1; first += at_once) {
    const int64_t last = first + at_once < g1 ? first + at_once : g1;
    multiply_rows<is_bf16<W>>(rows, first, last, i0, i1, scratch, [&](int64_t k0, int64_t k, float* to) {
      for (int64_t g = first; g < last; ++g) {
        float* const tiles = to + (g - first) * kChain * kGroup;
        make_weight_tiles(all + (g * m.cols + k0) * kGroup, k, reinterpret_cast<uint16_t*>(tiles));
      }
    });
  }
}

void matmul_float_tiles(const FloatMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  if (m.type == Type::F32) {
    matmul_float_tiles_of<float>(m, g0, g1, i0, i1, scratch);
  } else if (m.type == Type::F16) {
    matmul_float_tiles_of<Half>(m, g0, g1, i0, i1, scratch);
  } else {
    matmul_float_tiles_of<Bf16>(m, g0, g1, i0, i1, scratch);
  }
}

/// Values of every type are float32 here, brought as matmul_dx brings them.
void matmul_dx_tiles(const GradientMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  const TiledRows rows{m.dy, nullptr, m.dx, m.rows, m.cols, m.T, m.accumulate};
  with_weights(m, g0, g1, [&](const auto& bring_rows) {
    multiply_rows<false>(rows, g0, g1, i0, i1, scratch, [&](int64_t k0, int64_t k, float* to) {
      for (int64_t r = 0; r < k; r += 16) bring_rows(m.w + size_t((k0 + r) / 16) * m.group_bytes, to + r * 16);
      for (int64_t g = 0; g < g1 - g0; ++g) {
        float* const values = to + g * kChain * kGroup;
        make_weight_tiles(values, k, reinterpret_cast<uint16_t*>(values));
      }
    });
  });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
