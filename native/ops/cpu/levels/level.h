// What an instruction set level exports: one table of functions over plain arguments, and the numbers that the code
// around it needs to lay out work. Level files are compiled with their own flags, so they share no inline code with
// the rest: only these structs, whose members are plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "ops/cpu/quantized_format.h"

namespace minigpt4::cpu {

/// Output rows that a weight has side by side: [group][k][16], so that one output is one lane all the way.
inline constexpr int kGroup = 16;
/// A float dot product is a chain of fused multiply-adds over this many values from zero; the chains' sums are added
/// in order. Long enough for registers to pay, short enough for the rounding error to stay that of a short sum.
inline constexpr int kChain = 256;
/// Rows that are multiplied in one go: a multiple of every level's tile, so that sums and the activations of one chain
/// stay in a core's level 2 cache, and many enough that reading the weights once for them is cheap.
inline constexpr int kRowsAtOnce = 288;
/// The largest `float_rows`, `product_rows` and `quantized_rows` of any level.
inline constexpr int kMostTileRows = 16;

/// y[T, rows] (+)= x · wᵀ + bias for packed float weights.
struct FloatMatmul {
  Type type;       // F32, F16, BF16
  const void* w;   // [groups][cols][16]
  const float* x;  // tiles of product_rows rows, each as make_tile makes it
  const float* bias;
  float* y;
  int64_t rows, cols;
  int T;
  bool accumulate;
};

/// dx[T, cols] (+)= dy · w for packed weights of any type, row groups `group_bytes` apart, blocks as in QuantizedFormat.
struct GradientMatmul {
  Type type;
  int kind, offset;  // of blocks: QuantizedFormat::kind and offset
  const uint8_t* w;
  size_t group_bytes;
  const float* dy;  // tiles of product_rows rows, each as make_tile makes it
  float* dx;
  int64_t rows, cols;
  int T;
  bool accumulate;
};

/// y (+)= x · wᵀ for packed blocks. Activations come in tiles of quantized_rows rows; within a tile of r rows every
/// plane is [blocks of 32][r][…].
struct QuantizedMatmul {
  int kind;          // QuantizedFormat::kind
  int code_offset;   // QuantizedFormat::offset
  const uint8_t* w;  // groups, `group_bytes` apart, as in QuantizedFormat
  size_t group_bytes;
  const int8_t* q;        // [32] a block; a level may order the bytes of a block's rows as it likes
  const float* d;         // one a block
  const int32_t* offset;  // -QuantizedFormat::offset · Σq over each half block (halves) or block
  const float* sum;       // Σq, likewise
  const float* bias;
  float* y;
  int64_t rows, cols;
  int T;
  bool accumulate;
};

/// Activations of row r of a tile to int8; the planes are the tile's, where block b of the row is b · stride + r.
struct QuantizeRow {
  const float* x;
  int64_t cols;
  int offset;      // of the weight's codes
  int sums;        // 1 or 2 a block
  int64_t stride;  // rows of the tile
  int r;
  int8_t* q;
  float* d;
  int32_t* offset_sum;
  float* sum;
};

/// One (image, head) of a dense attention; pointers at the head's first value.
struct DenseAttention {
  float* y;
  const float *q, *k, *v;
  int64_t y_stride, q_stride, k_stride, v_stride;
  int Tk, D;
  float scale;
};

/// One sequence and key-value head of a paged attention. Query vector m of the sequence is head m % heads of the
/// key-value head's `heads`, row m / heads.
struct PagedAttention {
  float* y;        // first row, first head of the group
  const float* q;  // likewise
  int64_t stride;  // floats between rows of q and y
  int heads, D;
  Type type;             // F32, F16, Q8_0
  size_t page_bytes;     // from a page to the next in k and v
  const uint8_t *k, *v;  // page 0 of this key-value head: k [D][16], v [16][D] a page, as KvPages says
  const int32_t* pages;
  const int32_t* positions;
  int longest;  // positions of the scratch's score rows, a multiple of 16
  float scale;
};

/// Queries whose part of dk and dv is one chain: a multiple of every level's float_rows.
inline constexpr int kGradientQueries = 48;
/// The gradient of one sequence's causal attention at one key-value head and the `heads` query heads that read it;
/// pointers at the sequence's first row, the head's (or the group's first head's) first value.
struct CausalGradient {
  float *dq, *dk, *dv;  // of the queries' rows
  const float *dy, *q;  // [queries] rows
  const float *k, *v;   // [keys] rows
  int64_t q_stride, kv_stride;
  int heads, D, queries, keys;
  float scale;
};

/// What AdamW does with every value, its numbers rounded to float32.
struct AdamwStep {
  float gradient_scale;
  float keep;                      // 1 - rate · weight decay
  float new1, beta2, new2;         // 1 - beta1, beta2, 1 - beta2
  float root_correction, epsilon;  // √(1 - beta2^step)
  float minus_step_size;           // -rate / (1 - beta1^step)
};

/// Of a row of logits: the largest, and the sum of exp(logit - largest).
struct SoftmaxSum {
  float largest;
  double sum;
};

/// Values that a compiler does not know, and where a loop leaves its result, so that nothing is left out.
struct PeakSeed {
  float factor, addend;
  uint8_t code;
  uint64_t* result;
};
/// `rounds` rounds on registers (or tiles) alone; gives the operations done, a multiply-add counted as two.
using PeakLoop = double (*)(int64_t rounds, const PeakSeed& seed);

/// What the level can do at most: the limits that its products are measured against (kernels/peak.h).
struct Peaks {
  uint64_t (*read)(const uint8_t* p, size_t bytes);  // bytes: a multiple of 4096
  PeakLoop fma;                                      // float32 multiply-adds
  PeakLoop dot;                                      // int8 products of the vector unit; null: it has none
  PeakLoop tile_int8 = nullptr;                      // the same of the matrix unit
  PeakLoop tile_bf16 = nullptr;
};

struct Level {
  const char* name;
  int float_rows;      // rows of queries that an attention takes at once
  int product_rows;    // rows of an activation tile in FloatMatmul and GradientMatmul
  int product_depth;   // values that such a tile's rows are padded to a multiple of; 1: a single row is a tile as it is
  int product_groups;  // that a piece of a FloatMatmul has at most
  int quantized_rows;  // rows of an activation tile in QuantizedMatmul
  int quantized_groups;  // that a piece of a QuantizedMatmul of several tiles has at most

  /// to[..] = a tile out of x[rows, cols]: as many floats as its rows padded to product_depth have.
  void (*make_tile)(const float* x, int rows, int64_t cols, float* to);
  /// Floats of scratch that matmul_quantized takes for so many tiles.
  int64_t (*quantized_scratch)(int tiles);

  /// Groups [g0, g1) times tiles [i0, i1). scratch: float_scratch(groups, tiles) floats.
  void (*matmul_float)(const FloatMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch);
  /// scratch: quantized_scratch(tiles) floats.
  void (*matmul_quantized)(const QuantizedMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch);
  void (*quantize_row)(const QuantizeRow& row);

  void (*layer_norm)(float* y, const float* x, const float* weight, const float* bias, int C, float eps);
  void (*rms_norm)(float* y, const float* x, const float* weight, int C, float eps);
  void (*gelu)(float* y, const float* x, int64_t n);
  void (*silu_mul)(float* y, const float* gate, const float* up, int64_t n);
  void (*exponential)(float* y, const float* x, int64_t n);  // what the softmax uses; here for its test
  void (*to_half)(uint16_t* y, const float* x, int64_t n);
  /// Blocks of 32 of the n values (the last one may be shorter) to codes and the scales d that they are multiplied with.
  void (*to_q8)(int8_t* codes, uint16_t* d, const float* x, int n);

  /// Query rows [t0, t1) of one head. scratch: dense_scratch floats.
  void (*attend_dense)(const DenseAttention& a, int t0, int t1, float* scratch);
  /// Query vectors [m0, m1), at most float_rows. scratch: paged_scratch floats.
  void (*attend_paged)(const PagedAttention& a, int m0, int m1, float* scratch);

  /// Groups of 16 columns [g0, g1), g0 even, times tiles [i0, i1). scratch: float_scratch(groups, tiles) floats.
  void (*matmul_dx)(const GradientMatmul& m, int64_t g0, int64_t g1, int i0, int i1, float* scratch);
  /// Rows [r0, r1) of dw[rows, cols] += dyᵀ · x.
  void (*matmul_dw)(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols, int64_t r0,
                    int64_t r1);
  void (*rms_norm_dx)(float* dx, const float* dy, const float* x, const float* weight, int C, float eps,
                      bool accumulate);
  void (*silu_mul_dx)(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n);
  /// scratch: gradient_scratch floats.
  void (*attend_dx)(const CausalGradient& a, float* scratch);
  /// p[n] = softmax(x) unless p is null; p may be x.
  SoftmaxSum (*softmax)(float* p, const float* x, int64_t n);
  void (*adamw)(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, const AdamwStep& a);
  Peaks peaks;
};

// static, so that no level's copy can be linked into another's code
static constexpr int64_t padded(int64_t n) { return (n + kGroup - 1) / kGroup * kGroup; }
/// Floats of a row of `cols` values in a tile.
static constexpr int64_t tile_cols(const Level& level, int64_t cols) {
  return (cols + level.product_depth - 1) / level.product_depth * level.product_depth;
}
/// A row of scores: not a multiple of 4096 bytes, so that a tile's rows fall into different cache sets.
static constexpr int64_t score_stride(int64_t n) { return padded(n) + kGroup; }
/// Sums of every tile and, for 16-bit weights, a chain's worth of weights as float32.
static constexpr int64_t float_scratch(int64_t groups, int tiles) {
  return groups * kGroup * (int64_t(tiles) * kMostTileRows + kChain);
}
static constexpr int64_t dense_scratch(int Tk, int D) {
  return padded(Tk) * D + padded(D) * Tk + kMostTileRows * (score_stride(Tk) + D + padded(D));
}
/// Also the weights of a page's positions times its scales, where it has scales: 16 for each block of 32 of D.
static constexpr int64_t paged_scratch(int longest, int D) {
  return kMostTileRows * (score_stride(longest) + D + padded(D) + (int64_t(D) + 31) / 32 * kGroup);
}
static constexpr int64_t gradient_scratch(int queries, int keys, int D) {
  return 2 * padded(keys) * D + padded(D) * keys + kGradientQueries * (2 * score_stride(keys) + D + 3 * padded(D)) +
         2 * queries * padded(D);
}

// One function a level that this build has; another level is one more file here, one more line in levels.cpp and in
// levels.cmake.
const Level& level_scalar();
#ifdef MINIGPT4_LEVEL_AVX2
const Level& level_avx2();
#endif
#ifdef MINIGPT4_LEVEL_AVX_VNNI
const Level& level_avx_vnni();
#endif
#ifdef MINIGPT4_LEVEL_AVX512
const Level& level_avx512();
#endif
#ifdef MINIGPT4_LEVEL_AMX
const Level& level_amx();
#endif
#ifdef MINIGPT4_LEVEL_NEON
const Level& level_neon();
#endif
#ifdef MINIGPT4_LEVEL_NEON_I8MM
const Level& level_neon_i8mm();
#endif

}  // namespace minigpt4::cpu
