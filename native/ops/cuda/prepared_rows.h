// Rows of activations as the matrix units read them. One kernel makes them of float32 rows (and normalises or gates them on
// the way); every product with the same kind of weights reads them then, as fragments b of m16n8: eight rows (tokens) are a
// tile's columns n. Rows are padded to a multiple of 8 with zeros.
//
//   kind    for weights      tile             bytes  lane 4g + q of a tile holds, of token g
//   q8      quantized        8 tokens x 64 k   512   8 bytes of each half: block 0 b[0], b[1]; block 1     (mma_s8_k32)
//   half    F16, BF16        8 tokens x 32 k   512   16 bytes: k 0-15 b[0], b[1]; k 16-31 b[0], b[1]   (mma_f16, mma_bf16)
//   plain   F32                                      rows of float32 as they are
//
// q8: per token and block of 32, d = largest |x| / 127 and codes to nearest even of x · (127 / largest), as on the CPU. With
// every tile of codes go 128 bytes of scales: [block][token] of Q8Scale.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace minigpt4::cuda {

struct Q8Scale {
  float d;
  int16_t sums[2];  // of the codes of the block's first and second 16
};

enum class RowKind { q8, f16, bf16, plain };

constexpr RowKind row_kind(Type weights) {
  return weights == Type::F32    ? RowKind::plain
         : weights == Type::F16  ? RowKind::f16
         : weights == Type::BF16 ? RowKind::bf16
                                 : RowKind::q8;
}

inline constexpr int kTokenTile = 8;
/// Products of the same prepared rows that one launch takes: q, k and v; gate and up.
inline constexpr int kProductsAtOnce = 4;

/// Device memory of T prepared rows of `cols` values. Tile (token tile t, column tile c) is number t · col_tiles + c, and of q8
/// c · token_tiles() + t: a kernel's tiles of some columns then lie one after the other.
struct PreparedRows {
  RowKind kind = RowKind::plain;
  int T = 0;
  int64_t cols = 0;
  int64_t col_tiles = 0;            // q8: of 64 columns, half: of 32
  const uint8_t* codes = nullptr;   // q8, half: 512 bytes a tile
  const Q8Scale* scales = nullptr;  // q8: 16 a tile
  const float* x = nullptr;         // plain: [T, cols]

  constexpr int token_tiles() const { return (T + kTokenTile - 1) / kTokenTile; }
};

}  // namespace minigpt4::cuda
