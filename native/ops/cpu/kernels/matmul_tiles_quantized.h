// Products with quantized weights on the matrix unit. The packed layout is the unit's already: code vector j of a block is
// row j of a tile of weights, a tile of activations is one of theirs. A block's dot products come out of the unit as the
// exact integers that they are everywhere, and what follows in float32 is what matmul_quantized.h says: the same bits as at
// every other level, so which rows go which way is only a question of time.
//
// Weights are unpacked to signed codes a chunk of k at a time, for all rows of the piece. Then, step by step through the groups
// of all tiles of rows, two things go on at once: the unit makes the dot products of a step (four 16 x 16 results, through
// level 1, because what a tile holds only memory can pass on), and the vectors scale and add those of the step before, which
// never waits for a store. Counted per 16 rows x 16 outputs x 32 values, in what GCC 12 makes of it, for Sapphire Rapids:
// the unit takes 16 cycles (half its rate: blocks end before its 64 bytes of k do); stores, one a cycle, 16 of results and 4
// of sums, 20; loads of 512 bits, two a cycle, 16 + 8 of the two tiles, 16 of results and 4 of sums, 22, and the 16 of d
// beside them; the two 512-bit ports 3 instructions a row, 24 (with minimums 4, 32; Q3_K and Q6_K 5, 40; Q2_K 7, 56). So the
// vectors bound it, if not by much: 16384 operations in 24 cycles, 2.0 TOPS a core at 3 GHz at best, where dot products of
// vectors (8 more instructions a row) would give 0.6. Computed, not measured: llvm-mca finds no chain and no front end slower
// than these ports, and knows nothing of tiles.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// Of a tile with fewer rows than this each is done by vectors. Unpacking to tiles costs about 19 cycles a block more
/// than unpacking to registers, a row 2 instead of 5.5; and below some ten rows the weights come from memory more slowly
/// than either uses them.
constexpr int kFewestTileRows = 6;
/// What is unpacked at a time: while every tile of rows goes by, its codes (16 KiB) and scales (2 KiB, of Q2_K 8) stay in
/// level 1 (48 KiB) beside the results (8 KiB) and what a tile needs, sums and activations (4 KiB each).
constexpr int kChunkGroups = 4, kChunkBlocks = 8;
/// Results of a step.
constexpr int kStepDots = 4;
/// From a row of a result to its next one, and from a result to the next: between a step's rows lie those of the other step.
/// Else results of the two would lie whole multiples of 4096 bytes apart, and a load of one would have to wait for the storing of
/// the other, which the processor takes for the same place until it compares whole addresses.
constexpr int kDotsRow = 2 * 16, kDots = kTileRows * kDotsRow;

static_assert(kQuantizedRows == kTileRows);

/// A chunk of weights: codes [groups][blocks][8][64], scales [groups][blocks][BlockScales' vectors in use][16], the results
/// of two steps [kStepDots][16][2][16] and the sums [tiles][16][16 · groups].
struct QuantizedScratch {
  static constexpr int64_t codes_floats = int64_t(kChunkGroups) * kChunkBlocks * 512 / 4;
  static constexpr int64_t scales_floats = int64_t(kChunkGroups) * kChunkBlocks * 4 * 16;
  static constexpr int64_t dots_floats = kStepDots * kDots;
  static constexpr int64_t sums_floats = int64_t(kTileRows) * 16 * kChunkGroups;  // a tile

  explicit QuantizedScratch(float* at)
      : codes(reinterpret_cast<int8_t*>(at)),
        scales(at + codes_floats),
        dots(reinterpret_cast<int32_t*>(scales + scales_floats)),
        sums(scales + scales_floats + dots_floats) {}
  int8_t* codes;
  float* scales;
  int32_t* dots;
  float* sums;
};

int64_t quantized_tiles_scratch(int tiles) {
  return QuantizedScratch::codes_floats + QuantizedScratch::scales_floats + QuantizedScratch::dots_floats +
         tiles * QuantizedScratch::sums_floats;
}

template <int kind>
struct Kind {
  static constexpr int bits = kind / 8;
  static constexpr bool minimum = kind & 4, halves = kind & 2;
  static constexpr int parts = halves ? 2 : 1;                         // of a block, each with a scale
  static constexpr int scale_floats = (minimum ? 2 : 1) * parts * 16;  // of a block: scales, then minimums
  static constexpr int step_blocks = kStepDots / parts;
};

/// Blocks [b0, b0 + blocks) of a group.
template <int kind>
void unpack_blocks(const QuantizedMatmul& m, int64_t g, int64_t b0, int blocks, int8_t* codes, float* scales) {
  using K = Kind<kind>;
  const uint8_t* const group = m.w + size_t(g) * m.group_bytes;
  const int offset = m.code_offset;
  // What is unpacked next is asked for, because what a chunk takes of a group is too little for the processor to see it
  // coming: the group's next chunk, or the first one of the group that stands here in the next four.
  const bool last = b0 + kChunkBlocks >= m.cols / 32;
  const uintptr_t next = uintptr_t(group) + (last ? kChunkGroups * m.group_bytes : 0);
  const int64_t next_block = last ? 0 : b0 + kChunkBlocks;
  for (int b = 0; b < blocks; ++b, codes += 512, scales += K::scale_floats) {
    for (int part = 0; part < kParts; ++part) {
      const uint8_t* block = group + codes_at<kind>(b0 + b) + part * kLanes * 4;
      int8_t* to = codes + part * kLanes * 4;
      if (part == 0) {
        const int64_t at = next_block + b;
#pragma GCC unroll 8
        for (int i = 0; i < K::bits; ++i) ask_for<2>(next + codes_at<kind>(at) + 64 * i);
        // a record's blocks ask for a line of its scales each, as far as they go
        constexpr int64_t record_blocks = format_of_kind<kind>.record_blocks(),
                          bytes = format_of_kind<kind>.scale_bytes();
        const int64_t line = at % record_blocks * 64;
        if (line < bytes) ask_for<2>(next + record_at<kind>(at) + line);
      }
      store_codes(to, minus(code_vector<K::bits, 0>(block), offset));
      store_codes(to + 64, minus(code_vector<K::bits, 1>(block), offset));
      store_codes(to + 128, minus(code_vector<K::bits, 2>(block), offset));
      store_codes(to + 192, minus(code_vector<K::bits, 3>(block), offset));
      store_codes(to + 256, minus(code_vector<K::bits, 4>(block), offset));
      store_codes(to + 320, minus(code_vector<K::bits, 5>(block), offset));
      store_codes(to + 384, minus(code_vector<K::bits, 6>(block), offset));
      store_codes(to + 448, minus(code_vector<K::bits, 7>(block), offset));
      const BlockScales s = block_scales<kind>(group, b0 + b, part);
      for (int h = 0; h < K::parts; ++h) {
        store(scales + 16 * h + part * kLanes, s.scale[h]);
        if constexpr (K::minimum) store(scales + 16 * (K::parts + h) + part * kLanes, s.minimum[h]);
      }
    }
  }
}

/// Tiles 0 to 3 are results, 4 and 5 activations, 6 and 7 weights.
template <bool halves, int i>
inline void dot_tile(const int8_t* q, int64_t block_bytes, const int8_t* codes) {
  constexpr int block = halves ? i / 2 : i, half = halves ? i % 2 : 0, a = 4 + i % 2, b = 6 + i % 2;
  tile_zero<i>();
  tile_load<b>(codes + 512 * block + 256 * half, 64);
  tile_load<a>(q + block * block_bytes + 16 * half, 32);
  tile_dot_i8<i, a, b>();
}
/// The first n results of a step.
template <bool halves, int n>
inline void dot_tiles(const int8_t* q, int64_t block_bytes, const int8_t* codes, int32_t* dots) {
  dot_tile<halves, 0>(q, block_bytes, codes);
  if constexpr (n > 1) dot_tile<halves, 1>(q, block_bytes, codes);
  if constexpr (n > 2) dot_tile<halves, 2>(q, block_bytes, codes);
  if constexpr (n > 3) dot_tile<halves, 3>(q, block_bytes, codes);
  tile_store<0>(dots, kDotsRow * 4);
  if constexpr (n > 1) tile_store<1>(dots + kDots, kDotsRow * 4);
  if constexpr (n > 2) tile_store<2>(dots + 2 * kDots, kDotsRow * 4);
  if constexpr (n > 3) tile_store<3>(dots + 3 * kDots, kDotsRow * 4);
}

/// sums[row · width + lane] continued over `blocks` blocks. d and (minimum) totals are those of a tile's rows, block by
/// block.
template <int kind, int blocks>
[[gnu::noinline]] void add_blocks(const int32_t* dots, const float* scales, const float* d, const float* totals,
                                  int rows, float* sums, int64_t width) {
  using K = Kind<kind>;
  for (int part = 0; part < kParts; ++part) {
    const int at = part * kLanes;
    F scale[blocks][K::parts], minimum[blocks][K::parts];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
#pragma GCC unroll 2
      for (int h = 0; h < K::parts; ++h) {
        scale[b][h] = load(scales + b * K::scale_floats + 16 * h + at);
        if constexpr (K::minimum) minimum[b][h] = load(scales + b * K::scale_floats + 16 * (K::parts + h) + at);
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; ++r) {
      float* const to = sums + r * width + at;
      F sum = load(to);
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) {
        const int32_t* dot = dots + b * K::parts * kDots + kDotsRow * r + at;
        F value = mul(scale[b][0], load_i32(dot));
        if constexpr (K::halves) value = fma(scale[b][1], load_i32(dot + kDots), value);
        if constexpr (K::minimum) {
#pragma GCC unroll 2
          for (int h = 0; h < K::parts; ++h) {
            value = fma(minimum[b][h], set1(totals[(b * int64_t(rows) + r) * K::parts + h]), value);
          }
        }
        sum = fma(set1(d[b * int64_t(rows) + r]), value, sum);
      }
      store(to, sum);
    }
  }
}

inline int rows_of_tile(const QuantizedMatmul& m, int i) {
  return m.T - i * kTileRows < kTileRows ? m.T - i * kTileRows : kTileRows;
}

/// Tiles of rows [i0, i1) times the chunk of `blocks` blocks from b0 on, in one run of steps: the unit and the vectors wait for
/// one another at its ends alone.
template <int kind>
void multiply_chunk(const QuantizedMatmul& m, int i0, int i1, int64_t b0, int groups, int blocks,
                    const QuantizedScratch& scratch, TilesInUse& tiles) {
  using K = Kind<kind>;
  struct Step {
    const int32_t* dots;
    const float *scales, *d, *totals;
    float* sums;
    int rows, blocks;
  };
  const int64_t all_blocks = m.cols / 32, width = 16 * groups;
  const auto finish = [&](const Step& s) {
    if (s.blocks == K::step_blocks) {
      add_blocks<kind, K::step_blocks>(s.dots, s.scales, s.d, s.totals, s.rows, s.sums, width);
    } else {
      add_blocks<kind, 1>(s.dots, s.scales, s.d, s.totals, s.rows, s.sums, width);
    }
  };
  Step before{};
  int32_t *dots = scratch.dots, *other = scratch.dots + kDotsRow / 2;
  for (int i = i0; i < i1; ++i) {
    const int rows = rows_of_tile(m, i);
    tiles.shape(rows, 0, [&](TileShapes& shapes) {
      for (int t = 0; t < 4; ++t) shapes.set(t, rows, 64);
      for (int t = 4; t < 6; ++t) shapes.set(t, rows, 32 / K::parts);
      for (int t = 6; t < 8; ++t) shapes.set(t, 8 / K::parts, 64);
    });
    const int64_t at = i * kTileRows * all_blocks + b0 * rows, block_bytes = int64_t(rows) * 32;
    for (int g = 0; g < groups; ++g) {
      const int8_t *q = m.q + at * 32, *codes = scratch.codes + g * kChunkBlocks * 512;
      Step step{dots,
                scratch.scales + g * kChunkBlocks * K::scale_floats,
                m.d + at,
                m.sum + at * K::parts,
                scratch.sums + (i - i0) * kTileRows * width + 16 * g,
                rows,
                0};
      for (int left = blocks; left > 0; left -= step.blocks) {
        step.dots = dots;
        if (left >= K::step_blocks) {
          step.blocks = K::step_blocks;
          dot_tiles<K::halves, kStepDots>(q, block_bytes, codes, dots);
        } else {
          step.blocks = 1;
          dot_tiles<K::halves, K::parts>(q, block_bytes, codes, dots);
        }
        if (before.rows > 0) finish(before);
        before = step;
        int32_t* const free = other;
        other = dots, dots = free;
        q += step.blocks * block_bytes, codes += step.blocks * 512;
        step.scales += step.blocks * K::scale_floats;
        step.d += step.blocks * int64_t(rows), step.totals += step.blocks * int64_t(rows) * K::parts;
      }
    }
  }
  finish(before);
}

template <int kind>
void matmul_quantized_tiles_of(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch_at) {
  if (rows_of_tile(m, i1 - 1) < kFewestTileRows) {
    matmul_quantized_of<kind>(m, g0, g1, i1 - 1, i1);
    --i1;
  }
  if (i0 == i1) return;
  const QuantizedScratch scratch(scratch_at);
  const int64_t all_blocks = m.cols / 32;
  TilesInUse tiles;
  for (int64_t g = g0; g < g1; g += kChunkGroups) {
    const int groups = g1 - g < kChunkGroups ? int(g1 - g) : kChunkGroups;
    const int64_t width = 16 * groups;
    for (int64_t n = 0; n < (i1 - i0) * kTileRows * width; n += kLanes) store(scratch.sums + n, zero());
    for (int64_t b0 = 0; b0 < all_blocks; b0 += kChunkBlocks) {
      const int blocks = all_blocks - b0 < kChunkBlocks ? int(all_blocks - b0) : kChunkBlocks;
      for (int n = 0; n < groups; ++n) {
        unpack_blocks<kind>(m, g + n, b0, blocks, scratch.codes + n * kChunkBlocks * 512,
                            scratch.scales + n * kChunkBlocks * Kind<kind>::scale_floats);
      }
      multiply_chunk<kind>(m, i0, i1, b0, groups, blocks, scratch, tiles);
    }
    for (int i = i0; i < i1; ++i) {
      for (int r = 0; r < rows_of_tile(m, i); ++r) {
        finish_row(m.y + (int64_t(i) * kTileRows + r) * m.rows, scratch.sums + ((i - i0) * kTileRows + r) * width,
                   m.bias, m.accumulate, m.rows, g * 16, groups);
      }
    }
  }
}

void matmul_quantized_tiles(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch) {
  switch (m.kind) {
#define MINIGPT4_KIND(bits, minimum, halves, super)                                                              \
  case (QuantizedFormat{bits, 0, minimum, halves, super}.kind()):                                                \
    return matmul_quantized_tiles_of<QuantizedFormat{bits, 0, minimum, halves, super}.kind()>(m, g0, g1, i0, i1, \
                                                                                              scratch);
    MINIGPT4_EVERY_KIND
#undef MINIGPT4_KIND
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
