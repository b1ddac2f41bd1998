// Products of several tiles of rows with 8-bit codes, for a level whose products of bytes would saturate (AVX2). dot_rows takes
// three multiplications there for every four products of a lane, one of them for signs, and more registers than there are.
// Here codes and activations become 16-bit numbers first, the codes once for all rows, and two multiplications do: exactly,
// too, so every lane goes through what it goes through there and the result has the same bits.
//
// A piece goes by stretches of a few blocks, whose codes stay in level 1 while all its rows pass by; sums wait in scratch
// meanwhile. Zen 4, one core, 257 rows in Q8_0, 1408 -> 4224: 113 Gop/s by dot_rows, 145 by this. Multiplications, of which
// two begin a cycle, would allow 186; loads and additions beside them leave no more than 4.4 instructions a cycle of 6.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kWideBlocks = 4;  // of a stretch
constexpr int kWideGroups = 4;  // whose sums wait together

/// A block's codes of one group as 16-bit numbers: for every word of four the even ones of each lane, then the odd ones.
constexpr int kWideCodes = 32 * kGroup;
/// One row's activations of a block, likewise: the even ones of all eight words, then the odd ones.
constexpr int kWideRow = 32;

/// Floats: sums [tiles][kQuantizedRows][kWideGroups][16], codes of a stretch, activations of one tile in it.
inline int64_t wide_scratch(int tiles) {
  // two numbers of 16 bits in the place of a float
  constexpr int64_t numbers = int64_t(kWideBlocks) * (kWideGroups * kWideCodes + kQuantizedRows * kWideRow) / 2;
  return int64_t(tiles) * kQuantizedRows * kWideGroups * kGroup + numbers;
}

/// A block of a group's codes.
inline void widen_codes(const uint8_t* from, int16_t* to) {
  constexpr int a_vector = kLanes * 4;
  for (int i = 0; i < 32 * kGroup; i += kGroup * 4) {  // a word of four of every output
    for (int p = 0; p < kParts; ++p) {
      const Codes codes = signed_codes(load_codes(from + i + p * a_vector));
      store_wide(to + i + p * kLanes * 2, even_bytes(codes));
      store_wide(to + i + (kParts + p) * kLanes * 2, odd_bytes(codes));
    }
  }
}

/// `count` blocks of the `rows` rows of a tile.
inline void widen_rows(const int8_t* from, int64_t count, int rows, int16_t* to) {
  for (int64_t i = 0; i < count * rows * 32; i += 32) {
    const Codes q = load_codes(reinterpret_cast<const uint8_t*>(from + i));
    store_wide(to + i, even_bytes(q));
    store_wide(to + i + 16, odd_bytes(q));
  }
}

/// sums[r · kWideGroups · 16 + lane] of R rows of a tile and one group, on from where they are: blocks [b0, b0 + count).
template <int kind, int R>
[[gnu::noinline]] void dot_wide(const QuantizedMatmul& m, const uint8_t* group, const int16_t* codes,
                                const int16_t* activations, int64_t b0, int64_t count, int64_t tile_at, float* sums) {
  constexpr int to_next = kWideGroups * kGroup;
  for (int64_t b = 0; b < count; ++b) {
    I dots[R][kParts];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < kParts; ++p) dots[r][p] = set1_int(0);
    }
    const int16_t* const block = codes + b * kWideCodes;
    const int16_t* const row = activations + b * R * kWideRow;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {  // of every word the even ones, then the odd ones
      I c[kParts];
#pragma GCC unroll 2
      for (int p = 0; p < kParts; ++p) c[p] = load_wide(block + (i * kParts + p) * kLanes * 2);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const I pair = set1_pair(row + r * kWideRow + i % 2 * 16 + i / 2 * 2);
#pragma GCC unroll 2
        for (int p = 0; p < kParts; ++p) dots[r][p] = add_pairs(dots[r][p], c[p], pair);
      }
    }
#pragma GCC unroll 2
    for (int p = 0; p < kParts; ++p) {
      const F scale = block_scales<kind>(group, b0 + b, p).scale[0];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        float* const sum = sums + r * to_next + p * kLanes;
        const F factor = set1(m.d[tile_at + (b0 + b) * R + r]);
        store(sum, fma(factor, mul(scale, to_float(dots[r][p])), load(sum)));
      }
    }
  }
}

template <int kind>
void matmul_wide(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  static_assert(kind / 8 == 8 && !(kind & 7) && kQuantizedRows == 4 && !kRowPairs);
  const int64_t blocks = m.cols / 32;
  constexpr int64_t a_tile = kQuantizedRows * kWideGroups * kGroup;
  float* const sums = scratch;
  int16_t* const codes = reinterpret_cast<int16_t*>(sums + (i1 - i0) * a_tile);  // [group][stretch's block][kWideCodes]
  int16_t* const activations = codes + kWideBlocks * kWideGroups * kWideCodes;   // [stretch's block][row][kWideRow]
  for (int64_t g = g0; g < g1; g += kWideGroups) {
    const int64_t groups = g1 - g < kWideGroups ? g1 - g : kWideGroups;
    for (int64_t i = 0; i < (i1 - i0) * a_tile; i += kLanes) store(sums + i, zero());
    for (int64_t b = 0; b < blocks; b += kWideBlocks) {
      const int64_t count = blocks - b < kWideBlocks ? blocks - b : kWideBlocks;
      for (int64_t j = 0; j < groups; ++j) {
        const uint8_t* const group = m.w + size_t(g + j) * m.group_bytes;
        int16_t* const to = codes + j * kWideBlocks * kWideCodes;
        for (int64_t n = 0; n < count; ++n) widen_codes(group + codes_at<kind>(b + n), to + n * kWideCodes);
      }
      for (int i = i0; i < i1; ++i) {
        const int t = i * kQuantizedRows, rows = m.T - t < kQuantizedRows ? m.T - t : kQuantizedRows;
        const int64_t tile_at = t * blocks;
        widen_rows(m.q + (tile_at + b * rows) * 32, count, rows, activations);
        const auto dot = [&]<int R>() {
          for (int64_t j = 0; j < groups; ++j) {
            dot_wide<kind, R>(m, m.w + size_t(g + j) * m.group_bytes, codes + j * kWideBlocks * kWideCodes, activations,
                              b, count, tile_at, sums + (i - i0) * a_tile + j * kGroup);
          }
        };
        if (rows == 4) dot.template operator()<4>();
        if (rows == 3) dot.template operator()<3>();
        if (rows == 2) dot.template operator()<2>();
        if (rows == 1) dot.template operator()<1>();
      }
    }
    for (int i = i0; i < i1; ++i) {
      const int t = i * kQuantizedRows, rows = m.T - t < kQuantizedRows ? m.T - t : kQuantizedRows;
      for (int r = 0; r < rows; ++r) {
        finish_row(m.y + int64_t(t + r) * m.rows, sums + (i - i0) * a_tile + r * kWideGroups * kGroup, m.bias,
                   m.accumulate, m.rows, g * kGroup, groups);
      }
    }
  }
}

/// As matmul_quantized. A single tile of rows would widen the codes for itself alone.
inline void matmul_quantized_wide(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  constexpr int bytes = QuantizedFormat{8, 0, false, false, false}.kind();
  if (m.kind == bytes && m.T > kQuantizedRows) return matmul_wide<bytes>(m, g0, g1, i0, i1, scratch);
  matmul_quantized(m, g0, g1, i0, i1, scratch);
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
