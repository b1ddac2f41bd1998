// How quantized weights lie on the device: as the registers of the matrix units want them, so that every load is 4, 8 or
// 16 bytes a lane, a warp's bytes side by side, and decoding and prefill read the same memory.
//
// A tile is 16 rows (outputs) by 64 columns: two blocks of 32, each one fragment a[4] of mma_s8_k32. Lane 4g + q holds 32 of
// its codes: code (block b, register j, byte i) is row g + 8 (j % 2), column 32 b + 16 (j / 2) + 4q + i. They are cut
// into planes, one after the other:
//
//   plane   bytes a lane  bytes   word and place in it
//   4 bits      16         512    word j: block 0 in the low halves of its bytes, block 1 in the high ones
//   8 bits      16 + 16   1024    block b's sixteen bytes in plane b
//   2 bits       8         256    word b, bits 2j and 2j + 1 of byte i
//   1 bit        4         128    bit 4b + j of byte i
//
// 2 = 2, 3 = 2 + 1, 4 = 4, 5 = 4 + 1, 6 = 4 + 2, 8 = 8 bits; what stands first are the low bits. Types whose values are
// d · (code - 2^(bits-1)) have the code's top bit flipped, which makes it a two's complement number; a kernel moves it to the
// top of its byte and so computes with 2^(8-bits) times the number: `up_shift`. The other types (`minimum`) have a second
// scale and unsigned codes.
//
// After a tile's codes come its scales, `scale_lane` bytes for each g (lanes of the same g read the same bytes):
//
//   Q4_0 Q5_0 Q8_0   8   halfs d: row g block 0, block 1; row g + 8 block 0, block 1
//   Q4_1 Q5_1       16   the same of d, then of m; values are d · code + m
//   Q4_K Q5_K        8   bytes: scale as above, then minimum as above; values are d · scale · code - dmin · minimum
//   Q3_K Q6_K        8   signed bytes: scales of row g's four runs of 16 columns, then of row g + 8's
//   Q2_K             8   bytes likewise, each scale | minimum << 4
//
// Types with super-blocks of 256 (K) have a head before every four tiles: for each g the halfs d of rows g and g + 8, then
// (with a minimum) dmin of both. Rows are padded to 16 and columns to 64 (256) with codes and scales of zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

namespace minigpt4::cuda {

inline constexpr int kTileRows = 16;
inline constexpr int kTileCols = 64;

struct QuantizedLayout {
  Type type;
  int bits;      // of a code
  bool minimum;  // two scales and unsigned codes
  int runs;      // scales a block of 32: 1, or 2 (one for each 16 columns)
  bool super;    // heads every four tiles

  constexpr int up_shift() const { return minimum ? 0 : 8 - bits; }
  constexpr int code_bytes() const { return bits * 128; }
  constexpr int scale_lane() const { return minimum && !super ? 16 : 8; }
  constexpr int head_bytes() const { return !super ? 0 : minimum ? 64 : 32; }
  constexpr int tile_bytes() const { return code_bytes() + 8 * scale_lane(); }
  /// What columns are cut into: a tile, or a head and its four tiles.
  constexpr int step_tiles() const { return super ? 4 : 1; }
  constexpr int step_cols() const { return step_tiles() * kTileCols; }
  constexpr int step_bytes() const { return head_bytes() + step_tiles() * tile_bytes(); }
  constexpr int64_t steps(int64_t cols) const { return (cols + step_cols() - 1) / step_cols(); }
  /// Of 16 rows. A matrix is its row tiles one after the other.
  constexpr int64_t row_tile_bytes(int64_t cols) const { return steps(cols) * step_bytes(); }
  constexpr int64_t bytes(int64_t rows, int64_t cols) const {
    return (rows + kTileRows - 1) / kTileRows * row_tile_bytes(cols);
  }
};

template <Type type>
constexpr QuantizedLayout quantized_layout() {
  switch (type) {
    case Type::Q4_0:
      return {type, 4, false, 1, false};
    case Type::Q4_1:
      return {type, 4, true, 1, false};
    case Type::Q5_0:
      return {type, 5, false, 1, false};
    case Type::Q5_1:
      return {type, 5, true, 1, false};
    case Type::Q8_0:
      return {type, 8, false, 1, false};
    case Type::Q2_K:
      return {type, 2, true, 2, true};
    case Type::Q3_K:
      return {type, 3, false, 2, true};
    case Type::Q4_K:
      return {type, 4, true, 1, true};
    case Type::Q5_K:
      return {type, 5, true, 1, true};
    case Type::Q6_K:
      return {type, 6, false, 2, true};
    default:
      break;  // F32, F16, BF16 have no such layout
  }
  return {type, 0, false, 0, false};
}

/// Calls body(TypeTag<type>()) for a quantized type known at run time.
template <Type type>
using TypeTag = std::integral_constant<Type, type>;
template <class Body>
auto for_quantized(Type type, Body&& body) {
  switch (type) {
    case Type::Q4_0:
      return body(TypeTag<Type::Q4_0>());
    case Type::Q4_1:
      return body(TypeTag<Type::Q4_1>());
    case Type::Q5_0:
      return body(TypeTag<Type::Q5_0>());
    case Type::Q5_1:
      return body(TypeTag<Type::Q5_1>());
    case Type::Q8_0:
      return body(TypeTag<Type::Q8_0>());
    case Type::Q2_K:
      return body(TypeTag<Type::Q2_K>());
    case Type::Q3_K:
      return body(TypeTag<Type::Q3_K>());
    case Type::Q4_K:
      return body(TypeTag<Type::Q4_K>());
    case Type::Q5_K:
      return body(TypeTag<Type::Q5_K>());
    default:
      return body(TypeTag<Type::Q6_K>());
  }
}

}  // namespace minigpt4::cuda
