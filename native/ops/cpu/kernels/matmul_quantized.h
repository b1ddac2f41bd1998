// Products with quantized weights. Within a block of 32 (or a half of it, where scales go by 16) the dot product of
// codes and int8 activations is exact; what is done in float32 is the same few operations in the same order
// everywhere:
//
//   value = scale0 · dot0;  value = scale1 · dot1 + value;  value = minimum · Σq + value (each half);
//   sum = d · value + sum, blocks in order
//
// with fused multiply-adds, d the activations' and scale, minimum the weight's, products of its parts that are exact.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

void quantize_row(const QuantizeRow& row) {
  for (int64_t b = 0; b < row.cols / 32; ++b) {
    const float* x = row.x + 32 * b;
    const int64_t to = b * row.stride + row.r;
    const auto [amax, nothing] = range_of(x);
    const bool some = amax >= 1e-35f;  // below, 127 / amax would leave float32
    const F inverse = set1(some ? 127.0f / amax : 0.0f);
    alignas(32) int8_t apart[32];
    int8_t* q = kRowPairs ? apart : row.q + to * 32;
#pragma GCC unroll 4
    for (int i = 0; i < 32; i += kLanes) store_i8(q + i, mul(load(x + i), inverse));
    if constexpr (kRowPairs) {  // two rows take turns by eights; a last one without a partner lies as it would anyhow
      const bool paired = (row.r | 1) < row.stride;
      int8_t* at = row.q + (paired ? to - row.r % 2 : to) * 32 + (paired ? row.r % 2 * 8 : 0);
      for (int i = 0; i < 4; ++i) __builtin_memcpy(at + i * (paired ? 16 : 8), apart + 8 * i, 8);
    }
    row.d[to] = (some ? amax / 127.0f : 0.0f) + nothing;
    const int low = sum_bytes(q), high = sum_bytes(q + 16);
    if (row.sums == 2) {
      row.offset_sum[2 * to] = -row.offset * low;
      row.offset_sum[2 * to + 1] = -row.offset * high;
      row.sum[2 * to] = float(low);
      row.sum[2 * to + 1] = float(high);
    } else {
      row.offset_sum[to] = -row.offset * (low + high);
      row.sum[to] = float(low + high);
    }
  }
}

/// A level that has its own (AVX-512) keeps codes in a register; others leave that to the compiler.
template <class T>
inline T in_register(T codes) {
  return codes;
}

/// Code vector j of a block, one part of its lanes, out of the planes. `once`: a plane's vector is read once for all j.
template <int bits, int j, bool once = false>
inline Codes code_vector(const uint8_t* block) {
  const auto vector = [&](int i) {
    const Codes codes = load_codes(block + 64 * i);
    return once ? in_register(codes) : codes;
  };
  if constexpr (bits == 8) return vector(j);
  if constexpr (bits == 2) return bits_of<2 * (j % 4), 3>(vector(j / 4));
  if constexpr (bits == 3) return either(bits_of<2 * (j % 4), 3>(vector(j / 4)), bits_of<j - 2, 4>(vector(2)));
  if constexpr (bits == 4) return bits_of<j / 4 * 4, 15>(vector(j % 4));
  if constexpr (bits == 5) return either(bits_of<j / 4 * 4, 15>(vector(j % 4)), bits_of<j - 4, 16>(vector(4)));
  if constexpr (bits == 6) {
    return either(bits_of<j / 4 * 4, 15>(vector(j % 4)), bits_of<2 * (j % 4) - 4, 48>(vector(4 + j / 4)));
  }
}

/// Where the record of block b and its codes begin in a group: functions of this level's own, with the format's numbers.
template <int kind>
constexpr QuantizedFormat format_of_kind{kind / 8, 0, bool(kind & 4), bool(kind & 2), bool(kind & 1)};
template <int kind>
inline uint64_t record_at(uint64_t b) {
  constexpr uint64_t blocks = format_of_kind<kind>.record_blocks(), bytes = format_of_kind<kind>.record_bytes();
  return b / blocks * bytes;
}
template <int kind>
inline uint64_t codes_at(uint64_t b) {
  constexpr uint64_t blocks = format_of_kind<kind>.record_blocks(), scales = format_of_kind<kind>.scale_bytes();
  return record_at<kind>(b) + scales + b % blocks * (kind / 8 * 64);
}

/// Asks for a line of memory that will be read; it need not be anybody's. `level`: of the caches, 1 the nearest.
template <int level = 1>
inline void ask_for(uintptr_t at) {
  __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 4 - level);
}
/// How many bytes ahead of their use weights are asked for, where they are.
constexpr int kAhead = 1024;

struct BlockScales {
  F scale[2], minimum[2];  // by half block, the second only where scales go by 16
};

/// Of block j of a record.
template <int kind>
inline BlockScales record_scales(const uint8_t* record, int64_t j, int part) {
  constexpr bool minimum = kind & 4, halves = kind & 2, super = kind & 1;
  constexpr int head = format_of_kind<kind>.head_bytes();
  const uint8_t* at = record + (super ? 0 : j * head);
  const auto half = [&](const uint8_t* p) { return load_half(reinterpret_cast<const uint16_t*>(p) + part * kLanes); };
  BlockScales s;
  const F d = half(at);
  if constexpr (!super) {
    s.scale[0] = d;
    if constexpr (minimum) s.minimum[0] = half(at + 32);
  } else {
    const uint8_t* first = at + head + j * 32 + part * kLanes;
    if constexpr (halves && minimum) {  // Q2_K: a byte is scale | minimum << 4
      const F dmin = sub(zero(), half(at + 32));
      for (int h = 0; h < 2; ++h) {
        s.scale[h] = mul(d, load_nibble<0>(first + 16 * h));
        s.minimum[h] = mul(dmin, load_nibble<4>(first + 16 * h));
      }
    } else if constexpr (halves) {
      s.scale[0] = mul(d, load_i8(first));
      s.scale[1] = mul(d, load_i8(first + 16));
    } else {
      s.scale[0] = mul(d, load_u8(first));
      if constexpr (minimum) s.minimum[0] = mul(sub(zero(), half(at + 32)), load_u8(first + 16));
    }
  }
  return s;
}

/// Of block b of a group.
template <int kind>
inline BlockScales block_scales(const uint8_t* group, uint64_t b, int part) {
  return record_scales<kind>(group + record_at<kind>(b), b % format_of_kind<kind>.record_blocks(), part);
}

/// out[r · 16 + lane] for R rows from row r0 of a tile on and N vectors of outputs: those from part0 of this group on,
/// and then of the groups behind it (16 further in `out`). Not inlined: among others it would not get the registers it needs.
template <int kind, int R, int N>
[[gnu::noinline]] void dot_rows(const QuantizedMatmul& m, const uint8_t* group, int64_t tile_at, int rows, int r0,
                                int part0, float* out) {
  constexpr int bits = kind / 8;
  constexpr bool minimum = kind & 4, halves = kind & 2, super = kind & 1;
  constexpr bool alone = R == 1;        // then no other row's work hides the latency of a chain of dot products
  constexpr bool several = N > kParts;  // groups, of which each is a stream of memory (matvec_quantized)
  // Of several groups at once, 11008 columns: Q5_K 30 GB/s, Q6_K 26 where level 1 is asked shortly before, 23 and 25 with
  // level 2 in time; Q4_K 25 and 32. Nobody measured Q2_K and Q3_K, whose scales go by halves as Q6_K's do.
  constexpr bool slow = super && bits != 4;
  constexpr int ahead = several && slow ? kAhead / 2 : kAhead;
  // Where loads limit products (AVX-512, Q6_K: 8 rows 1.09 times as fast, one row 1.15 times).
  constexpr bool once = R >= 8 || (halves && alone && !several);
  // The first of several rows wait for memory and ask ahead for the others (Zen 4, one core, Q4_0, 8 rows: 225 Gop/s
  // without, 287 with, which is all that dot products give).
  const bool waits = !alone && tile_at == 0 && r0 == 0 && part0 == 0;
  const int64_t blocks = m.cols / 32, group_bytes = m.group_bytes;
  const int8_t* const activations = m.q;
  const float *const factors = m.d, *const totals = m.sum;
  const int32_t* const offsets = m.offset;
  F sum[R][N];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sum[r][n] = zero();
  }
  // By records: less to compute for a block's addresses, so that loads of more blocks are under way (Zen 4, one row: Q4_K 1.07
  // to 1.2 times as fast).
  constexpr int64_t record_blocks = format_of_kind<kind>.record_blocks();
  int64_t at = tile_at + r0;  // in blocks of one row
  for (int64_t b = 0; b < blocks; b += record_blocks, group += format_of_kind<kind>.record_bytes()) {
    const int64_t here = blocks - b < record_blocks ? blocks - b : record_blocks;
    for (int64_t j = 0; j < here; ++j, at += rows) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        const int part = kParts == 1 ? 0 : N == 1 ? part0 : n % kParts;
        const uint8_t* const of = group + n / kParts * group_bytes;
        const uint8_t* const block = of + format_of_kind<kind>.scale_bytes() + j * (bits * 64) + part * kLanes * 4;
        if (waits || (several && part == 0)) {
#pragma GCC unroll 8
          for (int i = 0; i < bits; ++i) ask_for<several && !slow ? 2 : 1>(uintptr_t(block) + ahead + 64 * i);
          // A super-block's scales lie between codes, five lines that no block's asking reaches (Zen 4, 8, 4 and 2 rows: Q4_K
          // 1.07, 1.17 and 1.3 times as fast with it). A single line of scales comes without: Q4_0 only loses by it.
          if (super && j == 0) {
#pragma GCC unroll 8
            for (uint64_t i = 0; i < format_of_kind<kind>.scale_bytes(); i += 64)
              ask_for<several && !slow ? 2 : 1>(uintptr_t(of) + ahead + i);
          }
        }
        const Codes c[8] = {code_vector<bits, 0, once>(block), code_vector<bits, 1, once>(block),
                            code_vector<bits, 2, once>(block), code_vector<bits, 3, once>(block),
                            code_vector<bits, 4, once>(block), code_vector<bits, 5, once>(block),
                            code_vector<bits, 6, once>(block), code_vector<bits, 7, once>(block)};
        const BlockScales s = record_scales<kind>(of, j, part);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
          const int8_t* q = activations + (at + r) * 32;
          F value;
          if constexpr (halves) {
            const int32_t* offset = offsets + 2 * (at + r);
            const float* total = totals + 2 * (at + r);
            value = mul(s.scale[0], to_float(dot<bits, 4, alone>(c, q, offset[0])));
            value = fma(s.scale[1], to_float(dot<bits, 4, alone>(c + 4, q + 16, offset[1])), value);
            if constexpr (minimum) {
              value = fma(s.minimum[0], set1(total[0]), value);
              value = fma(s.minimum[1], set1(total[1]), value);
            }
          } else {
            value = mul(s.scale[0], to_float(dot<bits, 8, alone>(c, q, offsets[at + r])));
            if constexpr (minimum) value = fma(s.minimum[0], set1(totals[at + r]), value);
          }
          sum[r][n] = fma(set1(factors[at + r]), value, sum[r][n]);
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      store(out + 16 * r + n / kParts * 16 + (N == 1 ? part0 : n % kParts) * kLanes, sum[r][n]);
    }
  }
}

/// What dot_rows<kind, R, 1> does for rows that lie in pairs: a level with kRowPairs has it.
template <int kind, int R>
void dot_pairs(const QuantizedMatmul& m, const uint8_t* group, int64_t tile_at, int rows, int r0, int part, float* out);

/// All rows of the tile that begins at row t times kGroupsAtOnce groups from group g on, into y: a level that takes more than
/// one has it, for kinds whose scales go by whole blocks.
template <int kind>
void matmul_groups(const QuantizedMatmul& m, int64_t g, int64_t t, int rows);

/// One group for R rows: all lanes at once for a single row, which reads the weights from memory; part by part for
/// more, which leaves registers for the sums.
template <int kind, int R>
void dot_group(const QuantizedMatmul& m, const uint8_t* group, int64_t tile_at, int rows, int r0, float* out) {
  if constexpr (R == 1) {
    dot_rows<kind, 1, kParts>(m, group, tile_at, rows, r0, 0, out);
  } else {
    for (int part = 0; part < kParts; ++part) {
      if constexpr (kRowPairs) {
        dot_pairs<kind, R>(m, group, tile_at, rows, r0, part, out);
      } else {
        dot_rows<kind, R, 1>(m, group, tile_at, rows, r0, part, out);
      }
    }
  }
}

/// A product with one row reads each weight once, a group after the other, as they lie: the processor foresees that, and no
/// request of ours makes it faster (Zen 4, one core, 2048 columns, in GB/s where plain reading has 34: Q4_0 34, Q8_0 33,
/// Q4_K 34, Q6_K 28; four groups side by side 26, 30, 25 and 20). Where groups are so long that the activations have to come
/// again from level 2 for each, it falls behind, the types with super-blocks first; there four groups share them (11008
/// columns: Q4_0 32 and 35, Q4_K 25 and 32, Q5_K 19 and 30).
template <int kind>
void matvec_quantized(const QuantizedMatmul& m, int64_t g0, int64_t g1) {
  constexpr int at_once = 4;
  constexpr size_t long_group = (kind & 1 ? 40 : 80) << 10;
  alignas(64) float out[at_once * 16];
  const auto take = [&]<int groups>(int64_t g) {
    dot_rows<kind, 1, groups * kParts>(m, m.w + size_t(g) * m.group_bytes, 0, 1, 0, 0, out);
    finish_row(m.y, out, m.bias, m.accumulate, m.rows, g * 16, groups);
  };
  int64_t g = g0;
  if (m.group_bytes > long_group) {
    for (; g + at_once <= g1; g += at_once) take.template operator()<at_once>(g);
  }
  for (; g < g1; ++g) take.template operator()<1>(g);
}

template <int kind>
void matmul_quantized_of(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1) {
  if (m.T == 1) return matvec_quantized<kind>(m, g0, g1);
  const int64_t blocks = m.cols / 32;
  for (int i = i0; i < i1; ++i) {
    const int t = i * kQuantizedRows, rows = m.T - t < kQuantizedRows ? m.T - t : kQuantizedRows;
    int64_t g = g0;
    if constexpr (kGroupsAtOnce > 1 && !(kind & 2)) {
      if (m.T > kQuantizedRows) {  // a single tile waits for memory: all its rows had better share what comes
        for (; g + kGroupsAtOnce <= g1; g += kGroupsAtOnce) matmul_groups<kind>(m, g, t, rows);
      }
    }
    for (; g < g1; ++g) {
      alignas(64) float out[kQuantizedRows * 16];
      const uint8_t* group = m.w + size_t(g) * m.group_bytes;
      int r = 0;
      if constexpr (kQuantizedRows >= 8) {
        for (; r + 8 <= rows; r += 8) dot_group<kind, 8>(m, group, t * blocks, rows, r, out + 16 * r);
      }
      if constexpr (kQuantizedRows >= 4) {
        for (; r + 4 <= rows; r += 4) dot_group<kind, 4>(m, group, t * blocks, rows, r, out + 16 * r);
      }
      for (; r + 2 <= rows; r += 2) dot_group<kind, 2>(m, group, t * blocks, rows, r, out + 16 * r);
      for (; r < rows; ++r) dot_group<kind, 1>(m, group, t * blocks, rows, r, out + 16 * r);
      for (r = 0; r < rows; ++r) {
        finish_row(m.y + int64_t(t + r) * m.rows, out + 16 * r, m.bias, m.accumulate, m.rows, g * 16, 1);
      }
    }
  }
}

// Every QuantizedFormat::kind (bits, minimum, halves, super), for a MINIGPT4_KIND that says what to do with it.
#define MINIGPT4_EVERY_KIND                        \
  MINIGPT4_KIND(4, false, false, false) /* Q4_0 */ \
  MINIGPT4_KIND(4, true, false, false)  /* Q4_1 */ \
  MINIGPT4_KIND(5, false, false, false) /* Q5_0 */ \
  MINIGPT4_KIND(5, true, false, false)  /* Q5_1 */ \
  MINIGPT4_KIND(8, false, false, false) /* Q8_0 */ \
  MINIGPT4_KIND(2, true, true, true)    /* Q2_K */ \
  MINIGPT4_KIND(3, false, true, true)   /* Q3_K */ \
  MINIGPT4_KIND(4, true, false, true)   /* Q4_K */ \
  MINIGPT4_KIND(5, true, false, true)   /* Q5_K */ \
  MINIGPT4_KIND(6, false, true, true)   /* Q6_K */

inline int64_t no_scratch(int) { return 0; }

inline void matmul_quantized(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float*) {
  switch (m.kind) {
#define MINIGPT4_KIND(bits, minimum, halves, super)               \
  case (QuantizedFormat{bits, 0, minimum, halves, super}.kind()): \
    return matmul_quantized_of<QuantizedFormat{bits, 0, minimum, halves, super}.kind()>(m, g0, g1, i0, i1);
    MINIGPT4_EVERY_KIND
#undef MINIGPT4_KIND
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
