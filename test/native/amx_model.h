// AMX's tile unit in plain C++, as Intel's SDM (volume 2, instructions LDTILECFG to TILEZERO and TDP…) describes it: for
// machines that have none, and as the statement of what the instructions compute. Whatever would fault or is undefined
// throws. Levels over it are compiled from the product's own kernels, one with flags of its own: nothing here is inline code
// that another file could be given.
#pragma once

#include <cstdint>

#include "ops/cpu/kernels/tile_shapes.h"

/// Throws std::logic_error.
[[noreturn]] void tile_unit_fault(const char* what);

namespace minigpt4::cpu::MINIGPT4_LEVEL {

struct Unit {
  bool configured = false;
  TileShapes shapes;
  uint8_t data[kTiles][kTileRows][kTileRowBytes];
};
inline thread_local Unit unit;

inline void must(bool holds, const char* what) {
  if (!holds) tile_unit_fault(what);
}
inline void must_be_configured(int tile) {
  must(unit.configured, "not configured");
  must(unit.shapes.rows[tile] > 0, "a tile without rows");
}

inline void tile_configure(const TileShapes& shapes) {
  must(reinterpret_cast<uintptr_t>(&shapes) % 64 == 0, "a configuration across cache lines");
  must(shapes.palette == 1 && shapes.start_row == 0, "palette 1, start row 0 are expected");
  for (uint8_t byte : shapes.reserved) must(byte == 0, "reserved bytes are not zero");
  for (int i = 0; i < 16; ++i) {
    const int rows = shapes.rows[i], bytes = shapes.row_bytes[i];
    must(rows <= kTileRows && bytes <= kTileRowBytes, "a tile is too large");
    must((rows == 0) == (bytes == 0), "a tile has rows or columns alone");
    must(i < kTiles || rows == 0, "a tile beyond the palette");
  }
  unit.configured = true;
  unit.shapes = shapes;
  __builtin_memset(unit.data, 0, sizeof unit.data);
}
inline void tile_release() { unit.configured = false; }

template <int tile>
inline void tile_zero() {
  must_be_configured(tile);
  __builtin_memset(unit.data[tile], 0, sizeof unit.data[tile]);
}
template <int tile>
inline void tile_load(const void* from, int64_t stride) {
  tile_zero<tile>();
  for (int r = 0; r < unit.shapes.rows[tile]; ++r) {
    __builtin_memcpy(unit.data[tile][r], static_cast<const uint8_t*>(from) + r * stride, unit.shapes.row_bytes[tile]);
  }
}
template <int tile>
inline void tile_store(void* to, int64_t stride) {
  must_be_configured(tile);
  for (int r = 0; r < unit.shapes.rows[tile]; ++r) {
    __builtin_memcpy(static_cast<uint8_t*>(to) + r * stride, unit.data[tile][r], unit.shapes.row_bytes[tile]);
  }
}

/// Faults where rows and columns of a product's tiles do not fit together.
inline void must_fit(int c, int a, int b) {
  must(c != a && c != b && a != b, "a product of a tile with itself");
  must_be_configured(c);
  must_be_configured(a);
  must_be_configured(b);
  const TileShapes& s = unit.shapes;
  must(s.row_bytes[a] % 4 == 0 && s.row_bytes[b] % 4 == 0, "columns that are no words");
  must(s.rows[c] == s.rows[a] && s.row_bytes[c] == s.row_bytes[b] && s.row_bytes[a] / 4 == s.rows[b],
       "shapes of a product do not fit");
}

template <class Value>
inline Value tile_value(int tile, int row, int i) {
  Value value;
  __builtin_memcpy(&value, unit.data[tile][row] + i * sizeof(Value), sizeof(Value));
  return value;
}

/// TDPBSSD.
template <int c, int a, int b>
inline void tile_dot_i8() {
  must_fit(c, a, b);
  constexpr int columns = kTileRowBytes / 4;
  const int depth = unit.shapes.row_bytes[a];
  int32_t across[kTileRowBytes][columns];  // b's bytes by k: beyond its columns a tile holds zeros
  for (int k = 0; k < depth; ++k) {
    for (int n = 0; n < columns; ++n) across[k][n] = tile_value<int8_t>(b, k / 4, 4 * n + k % 4);
  }
  for (int m = 0; m < unit.shapes.rows[c]; ++m) {
    int32_t sum[columns];
    __builtin_memcpy(sum, unit.data[c][m], sizeof sum);
    for (int k = 0; k < depth; ++k) {
      const int32_t value = tile_value<int8_t>(a, m, k);
      for (int n = 0; n < columns; ++n) sum[n] += value * across[k][n];
    }
    __builtin_memcpy(unit.data[c][m], sum, unit.shapes.row_bytes[c]);
  }
}

inline float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x; }
inline float tile_bf16(int tile, int row, int i) {
  const uint32_t bits = uint32_t(tile_value<uint16_t>(tile, row, i)) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

/// TDPBF16PS: to nearest even whatever the thread's rounding is, subnormals are zero on the way in and out. The order of the
/// additions is the SDM's: even and odd products in a chain each, then the two, then what was there.
template <int c, int a, int b>
inline void tile_dot_bf16() {
  must_fit(c, a, b);
  constexpr int columns = kTileRowBytes / 4;
  const int pairs = unit.shapes.row_bytes[a] / 4;
  float across[2][kTileRows][columns];  // b's even and odd values by pair: beyond its columns a tile holds zeros
  for (int k = 0; k < pairs; ++k) {
    for (int n = 0; n < columns; ++n) {
      across[0][k][n] = tile_bf16(b, k, 2 * n);
      across[1][k][n] = tile_bf16(b, k, 2 * n + 1);
    }
  }
  for (int m = 0; m < unit.shapes.rows[c]; ++m) {
    float chains[2][columns] = {};
    for (int k = 0; k < pairs; ++k) {
      for (int odd = 0; odd < 2; ++odd) {
        const float value = tile_bf16(a, m, 2 * k + odd);
        for (int n = 0; n < columns; ++n) {
          chains[odd][n] = flushed(__builtin_fmaf(value, across[odd][k][n], chains[odd][n]));
        }
      }
    }
    float sum[columns];
    __builtin_memcpy(sum, unit.data[c][m], sizeof sum);
    for (int n = 0; n < columns; ++n) sum[n] = flushed(flushed(sum[n]) + flushed(chains[0][n] + chains[1][n]));
    __builtin_memcpy(unit.data[c][m], sum, unit.shapes.row_bytes[c]);
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
