// A lane's part of a quantized tile (quantized_layout.h): loaded as it lies, then either as signed bytes for the matrix units
// with the factors of their sums, or as the floats that it stands for. Lane = 4g + q throughout.
#pragma once

#include <bit>
#include <cstdint>

#include "ops/cuda/gpu.h"
#include "ops/cuda/quantized_layout.h"

namespace minigpt4::cuda {

// ---- where tiles are loaded from

/// Global memory that is read once (weights in decoding).
struct LoadOnce {
  __device__ static uint32_t load32(const void* p) { return gpu::ldg32_once(p); }
  __device__ static uint2 load64(const void* p) { return gpu::ldg64_once(p); }
  __device__ static uint4 load128(const void* p) { return gpu::ldg128_once(p); }
};
/// Global memory that other blocks read, too.
struct LoadCached {
  __device__ static uint32_t load32(const void* p) { return gpu::ldg32(p); }
  __device__ static uint2 load64(const void* p) { return gpu::ldg64(p); }
  __device__ static uint4 load128(const void* p) { return gpu::ldg128(p); }
};
/// Shared memory.
struct LoadShared {
  __device__ static uint32_t load32(const void* p) { return *static_cast<const uint32_t*>(p); }
  __device__ static uint2 load64(const void* p) { return *static_cast<const uint2*>(p); }
  __device__ static uint4 load128(const void* p) { return *static_cast<const uint4*>(p); }
};

// ---- a lane's words

/// The codes' planes one after the other, then the scales of rows g and g + 8.
template <Type type>
struct TileWords {
  uint32_t codes[quantized_layout<type>().bits];
  uint32_t scales[quantized_layout<type>().scale_lane() / 4];
};
/// Words of a step's head: d of rows g and g + 8, then dmin; types without super-blocks have none.
template <Type type>
struct HeadWords {
  uint32_t d, dmin;
};

template <class Load>
__device__ inline void load_words(uint32_t* to, const uint8_t* from, int words) {
  if (words == 1) {
    to[0] = Load::load32(from);
  } else if (words == 2) {
    const uint2 two = Load::load64(from);
    to[0] = two.x, to[1] = two.y;
  } else {
    const uint4 four = Load::load128(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  }
}

template <Type type, class Load>
__device__ inline TileWords<type> load_tile(const uint8_t* tile, int lane) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  TileWords<type> of;
  int word = 0;
#pragma unroll
  for (int plane = 8; plane > 0; plane /= 2) {  // bits of a plane; 8 bits are two planes of four words
    if (!(layout.bits & plane)) continue;
#pragma unroll
    for (int part = 0; part < (plane + 3) / 4; ++part) {
      const int words = plane < 4 ? plane : 4;
      load_words<Load>(of.codes + word, tile + word * 128 + lane * words * 4, words);
      word += words;
    }
  }
  constexpr int scale_words = layout.scale_lane() / 4;
  load_words<Load>(of.scales, tile + layout.code_bytes() + lane / 4 * layout.scale_lane(), scale_words);
  return of;
}

template <Type type, class Load>
__device__ inline HeadWords<type> load_head(const uint8_t* head, int lane) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  HeadWords<type> of{};
  if constexpr (layout.super && layout.minimum) {
    const uint2 two = Load::load64(head + lane / 4 * 8);
    of.d = two.x, of.dmin = two.y;
  } else if constexpr (layout.super) {
    of.d = Load::load32(head + lane / 4 * 4);
  }
  return of;
}

// ---- codes

/// Bits of `word` that lie from bit `from` on brought to bit `to` on; `mask` names them where they arrive.
__device__ inline uint32_t moved(uint32_t word, int from, int to, uint32_t mask) {
  return (from <= to ? word << (to - from) : word >> (from - to)) & mask;
}
/// The same bits of four bytes.
constexpr uint32_t in_each_byte(uint32_t bits) { return bits * 0x01010101u; }

/// Fragment a[4] of block b (0, 1): signed bytes, 2^up_shift times the codes' numbers.
template <Type type>
__device__ inline void tile_fragment(uint32_t (&a)[4], const TileWords<type>& tile, int b) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  constexpr int bits = layout.bits, up = layout.up_shift();
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if constexpr (bits == 8) {
      a[j] = tile.codes[4 * b + j];
    } else if constexpr (bits >= 4) {
      a[j] = moved(tile.codes[j], 4 * b, up, in_each_byte(15u << up));
    } else {
      a[j] = moved(tile.codes[b], 2 * j, up, in_each_byte(3u << up));
    }
    if constexpr (bits == 6) a[j] |= moved(tile.codes[4 + b], 2 * j, up + 4, in_each_byte(3u << (up + 4)));
    if constexpr (bits == 5) a[j] |= moved(tile.codes[4], 4 * b + j, up + 4, in_each_byte(1u << (up + 4)));
    if constexpr (bits == 3) a[j] |= moved(tile.codes[2], 4 * b + j, up + 2, in_each_byte(1u << (up + 2)));
  }
}

// ---- factors

/// An integer, |x| < 2^22, as a float: as the low bits of 1.5 · 2^23, which costs an addition and no conversion.
inline constexpr int32_t kIntegerStart = 0x4B400000;
__device__ inline float float_of_started(int32_t x) { return std::bit_cast<float>(x) - 12582912.0f; }
__device__ inline float small_to_float(int32_t x) { return float_of_started(kIntegerStart + x); }
__device__ inline float unsigned_byte(uint32_t word, int byte) {
  return std::bit_cast<float>(0x4B000000u | ((word >> (8 * byte)) & 0xff)) - 8388608.0f;
}
__device__ inline float signed_byte(uint32_t word, int byte) {
  return std::bit_cast<float>(0x4B000000u | (((word ^ 0x80808080u) >> (8 * byte)) & 0xff)) - 8388736.0f;
}
__device__ inline float half_of(uint32_t word, int which) {
  return gpu::to_float(gpu::f16{uint16_t(word >> (16 * which))});
}

/// What rows g (h = 0) and g + 8 (h = 1) of a block multiply: the bytes of tile_fragment by `scale` (exact), and 1 by
/// `minimum`. One of each a run: a block of 32, or each half of it.
template <Type type>
struct BlockFactors {
  static constexpr int runs = quantized_layout<type>().runs;
  float scale[2][runs];    // [h][run]
  float minimum[2][runs];  // unset without a minimum
};
template <Type type>
__device__ inline BlockFactors<type> block_factors(const TileWords<type>& tile, const HeadWords<type>& head, int b) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  constexpr float down = 1.0f / float(1 << layout.up_shift());  // a power of two: nothing is rounded
  BlockFactors<type> of;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if constexpr (!layout.super) {
      of.scale[h][0] = half_of(tile.scales[h], b) * down;
      if constexpr (layout.minimum) of.minimum[h][0] = half_of(tile.scales[2 + h], b);
    } else if constexpr (layout.runs == 1) {  // Q4_K Q5_K
      of.scale[h][0] = half_of(head.d, h) * unsigned_byte(tile.scales[0], 2 * h + b);
      of.minimum[h][0] = -half_of(head.dmin, h) * unsigned_byte(tile.scales[1], 2 * h + b);
    } else {
#pragma unroll
      for (int run = 0; run < 2; ++run) {
        const int byte = 2 * b + run;
        if constexpr (layout.minimum) {  // Q2_K
          of.scale[h][run] = half_of(head.d, h) * unsigned_byte(tile.scales[h] & 0x0f0f0f0fu, byte);
          of.minimum[h][run] = -half_of(head.dmin, h) * unsigned_byte((tile.scales[h] >> 4) & 0x0f0f0f0fu, byte);
        } else {  // Q3_K Q6_K
          of.scale[h][run] = half_of(head.d, h) * down * signed_byte(tile.scales[h], byte);
        }
      }
    }
  }
  return of;
}

// ---- values

/// The values of a lane: v[b][j][i] is that of row g + 8 (j % 2), column 32 b + 16 (j / 2) + 4q + i of the tile. The very
/// bits that core/blocks' decode_row gives: scale · code rounded, then the minimum added.
template <Type type>
__device__ inline void tile_values(float (&v)[2][4][4], const TileWords<type>& tile, const HeadWords<type>& head) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    uint32_t a[4];
    tile_fragment<type>(a, tile, b);
    const BlockFactors<type> of = block_factors<type>(tile, head, b);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int run = layout.runs == 2 ? j / 2 : 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float code = layout.minimum ? unsigned_byte(a[j], i) : signed_byte(a[j], i);
        v[b][j][i] = of.scale[j % 2][run] * code;
        if constexpr (layout.minimum) v[b][j][i] += of.minimum[j % 2][run];
      }
    }
  }
}

}  // namespace minigpt4::cuda
