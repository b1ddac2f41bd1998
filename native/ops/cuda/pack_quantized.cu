// Quantized weights from the file's blocks to the device's tiles (quantized_layout.h), on the host. Each type says where the
// 32 codes of a block lie and what its scales are; everything else goes by words of four codes.
#include <cstring>

#include "core/block_layout.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/quantized_layout.h"

namespace minigpt4::cuda {

namespace {

/// Codes of a block of 32, four a word, in the order of columns.
struct Codes {
  uint32_t words[8];
};

void low_and_high_halves(const uint8_t* qs, Codes& to) {
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = load_u32(qs + 4 * i);
    to.words[i] = word & 0x0f0f0f0fu;
    to.words[i + 4] = (word >> 4) & 0x0f0f0f0fu;
  }
}
/// Adds bit `bit` of 32 bytes as bit `to_bit` of the codes.
void add_bits(const uint8_t* bytes, int bit, int to_bit, Codes& to) {
  for (int i = 0; i < 8; ++i) to.words[i] |= ((load_u32(bytes + 4 * i) >> bit) & 0x01010101u) << to_bit;
}
/// Adds bit i of `bits` as bit 4 of code i.
void add_fifth_bits(uint32_t bits, Codes& to) {
  for (int i = 0; i < 8; ++i, bits >>= 4) {
    // four copies of the nibble, 7 bits apart: bit i of it comes to lie at bit 8 i, and no two meet
    to.words[i] |= (((bits & 15) * 0x00204081u) & 0x01010101u) << 4;
  }
}
/// `bits` bits, from bit `from` of 32 bytes on.
void slice(const uint8_t* bytes, int from, int bits, Codes& to) {
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  for (int i = 0; i < 8; ++i) to.words[i] = (load_u32(bytes + 4 * i) >> from) & mask;
}

/// The 32 codes of block `sub` of a super-block (0 for the types without), as the file has them: unsigned but for Q8_0.
template <Type type>
void read_codes(const uint8_t* block, int sub, Codes& to) {
  if constexpr (type == Type::Q4_0) low_and_high_halves(block + 2, to);
  if constexpr (type == Type::Q4_1) low_and_high_halves(block + 4, to);
  if constexpr (type == Type::Q5_0) {
    low_and_high_halves(block + 6, to);
    add_fifth_bits(load_u32(block + 2), to);
  }
  if constexpr (type == Type::Q5_1) {
    low_and_high_halves(block + 8, to);
    add_fifth_bits(load_u32(block + 4), to);
  }
  if constexpr (type == Type::Q8_0) std::memcpy(to.words, block + 2, 32);
  if constexpr (type == Type::Q2_K) slice(block + 16 + 32 * (sub / 4), 2 * (sub % 4), 2, to);
  if constexpr (type == Type::Q3_K) {
    slice(block + 32 + 32 * (sub / 4), 2 * (sub % 4), 2, to);
    add_bits(block, sub, 2, to);
  }
  if constexpr (type == Type::Q4_K) slice(block + 16 + 32 * (sub / 2), 4 * (sub % 2), 4, to);
  if constexpr (type == Type::Q5_K) {
    slice(block + 48 + 32 * (sub / 2), 4 * (sub % 2), 4, to);
    add_bits(block + 16, sub, 4, to);
  }
  if constexpr (type == Type::Q6_K) {
    const int half = sub / 4, quarter = sub % 4;
    Codes high;
    slice(block + 64 * half + 32 * (quarter % 2), 4 * (quarter / 2), 4, to);
    slice(block + 128 + 32 * half, 2 * quarter, 2, high);
    for (int i = 0; i < 8; ++i) to.words[i] |= high.words[i] << 4;
  }
}

/// Where a row's scales go: those of its block b in the tile, and those of its super-block in the head.
struct ScalePlace {
  uint8_t* tile;  // of the row's g
  uint8_t* head;  // likewise
  int h;          // 0: row g, 1: row g + 8
};

/// Puts the scales of block `sub` of a super-block, which is block b of its tile.
template <Type type>
void write_scales(const uint8_t* block, int sub, int b, const ScalePlace& to) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  const int place = 2 * to.h + b;
  if constexpr (!layout.super) {
    std::memcpy(to.tile + 2 * place, block, 2);
    if constexpr (layout.minimum) std::memcpy(to.tile + 8 + 2 * place, block + 2, 2);
  } else if constexpr (type == Type::Q4_K || type == Type::Q5_K) {
    const ScaleMin of = unpack_scale_min(block + 4, sub);
    to.tile[place] = of.scale;
    to.tile[4 + place] = of.min;
  } else {
    for (int run = 0; run < 2; ++run) {
      const int i = 2 * sub + run;  // of the super-block's 16 runs
      uint8_t& scale = to.tile[4 * to.h + 2 * b + run];
      if constexpr (type == Type::Q2_K) scale = block[i];
      if constexpr (type == Type::Q6_K) scale = block[192 + i];
      if constexpr (type == Type::Q3_K) {
        const uint8_t* packed = block + 96;
        const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4, high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        scale = uint8_t((low | high << 4) - 32);
      }
    }
  }
}

/// Puts d (and dmin) of a super-block.
template <Type type>
void write_head(const uint8_t* block, const ScalePlace& to) {
  constexpr int d = type == Type::Q2_K ? 80 : type == Type::Q3_K ? 108 : type == Type::Q6_K ? 208 : 0;
  std::memcpy(to.head + 2 * to.h, block + d, 2);
  if constexpr (quantized_layout<type>().minimum) std::memcpy(to.head + 4 + 2 * to.h, block + d + 2, 2);
}

/// Ors the codes of row g + 8h, block b into a tile's planes.
template <Type type>
void add_codes(const Codes& codes, int g, int h, int b, uint8_t* tile) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  constexpr int bits = layout.bits;
  constexpr uint32_t flip = layout.minimum || bits == 8 ? 0 : 0x01010101u << (bits - 1);
  for (int i = 0; i < 8; ++i) {  // four columns each
    const uint32_t code = codes.words[i] ^ flip;
    const int lane = 4 * g + i % 4, j = h + 2 * (i / 4);
    const auto add = [&](int plane, int words, int word, uint32_t value) {
      uint8_t* at = tile + plane * 128 + (lane * words + word) * 4;
      store_u32(at, load_u32(at) | value);
    };
    if constexpr (bits == 8) add(4 * b, 4, j, code);
    if constexpr (bits >= 4 && bits < 8) add(0, 4, j, (code & 0x0f0f0f0fu) << (4 * b));
    if constexpr (bits < 4) add(0, 2, b, (code & 0x03030303u) << (2 * j));
    if constexpr (bits == 6) add(4, 2, b, ((code >> 4) & 0x03030303u) << (2 * j));
    if constexpr (bits == 5) add(4, 1, 0, ((code >> 4) & 0x01010101u) << (4 * b + j));
    if constexpr (bits == 3) add(2, 1, 0, ((code >> 2) & 0x01010101u) << (4 * b + j));
  }
}

template <Type type>
void pack_row(uint8_t* row_tile, const uint8_t* blocks, int64_t cols, int row) {
  constexpr QuantizedLayout layout = quantized_layout<type>();
  const int g = row % 8, h = row / 8;
  const size_t block_bytes = info(type).block_bytes;
  Codes codes;
  for (int64_t i = 0; i < cols / 32; ++i) {  // blocks of 32
    const int64_t sub = layout.super ? i % 8 : 0;
    const uint8_t* block = blocks + (layout.super ? i / 8 : i) * block_bytes;
    uint8_t* step = row_tile + i / 2 / layout.step_tiles() * layout.step_bytes();
    uint8_t* tile = step + layout.head_bytes() + i / 2 % layout.step_tiles() * layout.tile_bytes();
    const int b = int(i % 2);
    const ScalePlace place{tile + layout.code_bytes() + g * layout.scale_lane(), step + g * (layout.minimum ? 8 : 4),
                           h};
    read_codes<type>(block, int(sub), codes);
    add_codes<type>(codes, g, h, b, tile);
    write_scales<type>(block, int(sub), b, place);
    if constexpr (layout.super) {
      if (sub == 0) write_head<type>(block, place);
    }
  }
}

}  // namespace

void CudaOps::pack_quantized(uint8_t* to, const MatrixView& view) {
  for_quantized(view.type, [&](auto tag) {
    constexpr QuantizedLayout layout = quantized_layout<tag()>();
    const size_t row_tile = size_t(layout.row_tile_bytes(view.cols)),
                 file_row = row_bytes(view.type, uint64_t(view.cols));
    std::memset(to, 0, size_t(layout.bytes(view.rows, view.cols)));
    for (int64_t row = 0; row < view.rows; ++row) {
      pack_row<tag()>(to + row / kTileRows * row_tile, static_cast<const uint8_t*>(view.data) + row * file_row,
                      view.cols, int(row % kTileRows));
    }
  });
}

}  // namespace minigpt4::cuda
