// Quantized products of rows in pairs, by the instruction that multiplies 2 outputs by 2 rows over 8 values (i8mm): twice
// the products of a dot product. It wants 8 codes of an output side by side, so two vectors of four codes an output are
// zipped once for all rows; the rows lie in pairs already (quantize_row). Every lane goes through what it goes through
// in dot_rows, so the result has the same bits.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

template <bool high>
inline Codes zip_words(Codes a, Codes b) {
  const uint32x4_t x = vreinterpretq_u32_u8(a), y = vreinterpretq_u32_u8(b);
  return vreinterpretq_u8_u32(high ? vzip2q_u32(x, y) : vzip1q_u32(x, y));
}

/// Codes 8 i … 8 i + 7 of outputs 0 and 1 (high: 2 and 3) of a part of a block.
template <int bits, int i, bool high>
inline Codes eight_codes(const uint8_t* block) {
  if constexpr (bits == 4) {  // a vector of the plane has the codes of two: zipped before they are taken apart
    const uint8_t* at = block + 64 * (2 * i % 4);
    return bits_of<i / 2 * 4, 15>(zip_words<high>(load_codes(at), load_codes(at + 64)));
  } else {
    return zip_words<high>(code_vector<bits, 2 * i>(block), code_vector<bits, 2 * i + 1>(block));
  }
}

/// Two neighbours, twice.
inline F two_floats(const float* p) { return vcombine_f32(vld1_f32(p), vld1_f32(p)); }
inline I two_ints(const int32_t* p) { return vcombine_s32(vld1_s32(p), vld1_s32(p)); }

/// Of a part's scales or minima: those of outputs 0, 0, 1, 1 and of 2, 2, 3, 3.
struct Doubled {
  F of[2];
};
inline Doubled doubled(F x) { return {vzip1q_f32(x, x), vzip2q_f32(x, x)}; }

/// As dot_rows<kind, R, 1>, for an even R and rows that lie in pairs. Lane 2 o + r of a vector is output o (of two) for
/// row r of a pair.
template <int kind, int R>
[[gnu::noinline]] void dot_pairs(const QuantizedMatmul& m, const uint8_t* group, int64_t tile_at, int rows, int r0,
                                 int part, float* out) {
  static_assert(R % 2 == 0);
  constexpr int bits = kind / 8, pairs = R / 2;
  constexpr bool minimum = kind & 4, halves = kind & 2;
  constexpr int chains = halves ? 2 : 1, steps = 4 / chains;  // of dot products, in eights
  const int64_t blocks = m.cols / 32;
  const int8_t* const activations = m.q;
  const float *const factors = m.d, *const totals = m.sum;
  const int32_t* const offsets = m.offset;
  F sum[pairs][2];
#pragma GCC unroll 4
  for (int p = 0; p < pairs; ++p) sum[p][0] = sum[p][1] = zero();
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* block = group + codes_at<kind>(b) + part * kLanes * 4;
    const Codes codes[2][4] = {{eight_codes<bits, 0, false>(block), eight_codes<bits, 1, false>(block),
                                eight_codes<bits, 2, false>(block), eight_codes<bits, 3, false>(block)},
                               {eight_codes<bits, 0, true>(block), eight_codes<bits, 1, true>(block),
                                eight_codes<bits, 2, true>(block), eight_codes<bits, 3, true>(block)}};
    const BlockScales s = block_scales<kind>(group, b, part);
    Doubled scale[chains], least[chains];
#pragma GCC unroll 2
    for (int h = 0; h < chains; ++h) {
      scale[h] = doubled(s.scale[h]);
      if constexpr (minimum) least[h] = doubled(s.minimum[h]);
    }
#pragma GCC unroll 4
    for (int p = 0; p < pairs; ++p) {
      const int64_t at = tile_at + b * rows + r0 + 2 * p;  // in blocks of one row
      const int8_t* q = activations + at * 32;
      const int8x16_t x[4] = {vld1q_s8(q), vld1q_s8(q + 16), vld1q_s8(q + 32), vld1q_s8(q + 48)};
      const F factor = two_floats(factors + at);
      I offset[chains];
      F total[chains];
      if constexpr (halves) {
        const I all = vld1q_s32(offsets + 2 * at);  // both rows' two
        offset[0] = vuzp1q_s32(all, all);
        offset[1] = vuzp2q_s32(all, all);
        if constexpr (minimum) {
          const F sums = load(totals + 2 * at);
          total[0] = vuzp1q_f32(sums, sums);
          total[1] = vuzp2q_f32(sums, sums);
        }
      } else {
        offset[0] = two_ints(offsets + at);
        if constexpr (minimum) total[0] = two_floats(totals + at);
      }
#pragma GCC unroll 2
      for (int o = 0; o < 2; ++o) {
        F value;
#pragma GCC unroll 2
        for (int h = 0; h < chains; ++h) {
          I products = offset[h];
#pragma GCC unroll 4
          for (int i = h * steps; i < (h + 1) * steps; ++i) products = vusmmlaq_s32(products, codes[o][i], x[i]);
          const F dots = to_float(products);
          value = h == 0 ? mul(scale[h].of[o], dots) : fma(scale[h].of[o], dots, value);
        }
        if constexpr (minimum) {
#pragma GCC unroll 2
          for (int h = 0; h < chains; ++h) value = fma(least[h].of[o], total[h], value);
        }
        sum[p][o] = fma(factor, value, sum[p][o]);
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < pairs; ++p) {
    float* to = out + 32 * p + part * kLanes;
    store(to, vuzp1q_f32(sum[p][0], sum[p][1]));
    store(to + 16, vuzp2q_f32(sum[p][0], sum[p][1]));
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
