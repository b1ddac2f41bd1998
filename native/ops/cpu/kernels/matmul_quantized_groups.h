// Quantized products of several rows by several groups of outputs at once, for levels with registers for both and a dot
// product of one instruction: a row's values are spread over the lanes once for all groups. In dot_rows, which has one
// group, that is as many loads as dot products, and loads limit it, too. Every lane goes through what it goes through
// there, so the result has the same bits. Not for kinds with scales by half block: the first half's values would take
// the registers (Q6_K: 4 % slower than dot_rows).
//
// Zen 4, one core, 256 rows in Q8_0, 1408 -> 4224: 335 Gop/s by 8 rows x 1 group, 343 by 6 x 2, 350 by 3 x 4, 353 by
// 4 x 3. A block takes a row ten multiplications of vectors, eight of them dot products, on units that begin one a cycle:
// no order of them can give more than 4/5 of what dot products alone reach there, 376.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// dots[r][g] += codes · q of word j of a block, and of those behind it.
template <int bits, int j, int R, int G>
[[gnu::always_inline]] inline void add_words(I (&dots)[R][G], const uint8_t* block, size_t group_bytes,
                                             const int8_t* q) {
  if constexpr (j < 8) {
    Codes c[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) c[g] = code_vector<bits, j>(block + g * group_bytes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const I word = set1_word(q + 32 * r + 4 * j);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) dots[r][g] = add_dot(dots[r][g], c[g], word);
    }
    add_words<bits, j + 1>(dots, block, group_bytes, q);
  }
}

/// out[(r · G + g) · 16 + lane] for R rows from row r0 of a tile on and G groups. A block asks for a line of memory from `ahead`
/// on.
template <int kind, int R, int G>
[[gnu::noinline]] void dot_groups(const QuantizedMatmul& m, const uint8_t* group, int64_t tile_at, int rows, int r0,
                                  float* out, const uint8_t* ahead) {
  constexpr int bits = kind / 8;
  constexpr bool minimum = kind & 4, halves = kind & 2;
  static_assert(kParts == 1 && !halves && !kRowPairs);  // pairs of rows lie otherwise
  const int64_t blocks = m.cols / 32;
  const size_t group_bytes = m.group_bytes;
  const int8_t* const activations = m.q;
  const float *const factors = m.d, *const totals = m.sum;
  const int32_t* const offsets = m.offset;
  F sum[R][G];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) sum[r][g] = zero();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t at = tile_at + b * rows + r0;  // in blocks of one row
    ask_for<2>(uintptr_t(ahead) + 64 * b);
    I dots[R][G];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const I offset = set1_int(offsets[at + r]);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) dots[r][g] = offset;
    }
    add_words<bits, 0>(dots, group + codes_at<kind>(b), group_bytes, activations + at * 32);
    BlockScales s[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) s[g] = block_scales<kind>(group + g * group_bytes, b, 0);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const F factor = set1(factors[at + r]);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        F value = mul(s[g].scale[0], to_float(dots[r][g]));
        if constexpr (minimum) value = fma(s[g].minimum[0], set1(totals[at + r]), value);
        sum[r][g] = fma(factor, value, sum[r][g]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) store(out + (r * G + g) * 16, sum[r][g]);
  }
}

/// What the rows from row t on ask for while they are multiplied with the groups from group g on: their share of the groups
/// behind those, which the same thread takes next and whose first rows would wait for memory (1 % of ViT-g). The last rows of
/// all do so, as many as it takes, lest other rows' activations displace what came; the others ask for what is there.
inline const uint8_t* next_groups(const QuantizedMatmul& m, int64_t g, int64_t t) {
  const uint8_t* const group = m.w + size_t(g) * m.group_bytes;
  const size_t bytes = kGroupsAtOnce * m.group_bytes;
  const size_t share = size_t(m.cols) / 32 * 64;            // a line a block
  const size_t left = size_t(m.T - t - 1) / 4 * share;      // for rows behind these, four at a time
  const bool last = 16 * (g + 2 * kGroupsAtOnce) > m.rows;  // there are no such groups behind
  return last || left >= bytes ? group : group + 2 * bytes - left - share;
}

/// R rows of the tile that begins at row t, from its row r0 on, times kGroupsAtOnce groups from group g on.
template <int kind, int R>
inline void finish_groups(const QuantizedMatmul& m, int64_t g, int64_t t, int rows, int r0) {
  constexpr int G = kGroupsAtOnce;
  alignas(64) float out[R * G * 16];
  float* const y = m.y + (t + r0) * m.rows;
  // Rows of y lie far apart, which no hardware foresees: asked for before they are written (2 % of the whole product).
  for (int r = 0; r < R; ++r) {
    for (int64_t i = 16 * g; i < 16 * (g + G) && i < m.rows; i += 16) __builtin_prefetch(y + r * m.rows + i, 1);
  }
  const uint8_t* const group = m.w + size_t(g) * m.group_bytes;
  dot_groups<kind, R, G>(m, group, t * (m.cols / 32), rows, r0, out, next_groups(m, g, t + r0));
  for (int r = 0; r < R; ++r) {
    finish_row(y + r * m.rows, out + r * G * 16, m.bias, m.accumulate, m.rows, 16 * g, G);
  }
}

template <int kind>
void matmul_groups(const QuantizedMatmul& m, int64_t g, int64_t t, int rows) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) finish_groups<kind, 4>(m, g, t, rows, r);
  for (; r + 2 <= rows; r += 2) finish_groups<kind, 2>(m, g, t, rows, r);
  for (; r < rows; ++r) finish_groups<kind, 1>(m, g, t, rows, r);
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
