// Blocks of the file to the packed planes and back. Each type says how 32 codes and their scales lie in its block;
// everything else goes by 32-bit words of four codes.
#include <cstring>

#include "core/block_layout.h"
#include "ops/cpu/packed_matrix.h"

namespace minigpt4::cpu {

namespace {

void half_bytes(const uint8_t* qs, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) codes[i] = qs[i] & 15;
  for (int i = 0; i < 16; ++i) codes[i + 16] = qs[i] >> 4;
}

/// Ors 16 into the codes whose bit is set.
void fifth_bits(uint32_t bits, uint8_t* codes) {
  for (int i = 0; i < 4; ++i, bits >>= 8) {
    // Byte j of `spread` keeps bit j of eight; adding 127 carries any of them into the byte's top.
    const uint64_t spread = (uint64_t(bits & 255) * 0x0101010101010101u) & 0x8040201008040201u;
    const uint64_t sixteen = ((spread + 0x7f7f7f7f7f7f7f7fu) & 0x8080808080808080u) >> 3;
    uint64_t eight;
    std::memcpy(&eight, codes + 8 * i, 8);
    eight |= sixteen;
    std::memcpy(codes + 8 * i, &eight, 8);
  }
}

/// Where lane `lane` of a record's parts is: halfs at the head, bytes of block `sub` behind it.
struct Record {
  uint8_t* at;
  const QuantizedFormat& format;
  int lane;
  void head(int which, const uint8_t* half) const { std::memcpy(at + 32 * which + 2 * lane, half, 2); }
  void bytes(int sub, uint8_t first, uint8_t second) const {
    uint8_t* to = at + format.head_bytes() + 32 * sub + lane;
    to[0] = first;
    to[16] = second;
  }
};

// One struct a type: codes(block, sub, out) gives the 32 codes of the sub-block, scales(block, record) the rest. Where a
// block's codes lie in the file as in the planes, and only words of four bytes change places, words(block) is where they
// begin, `vectors` how many planes' vectors they fill, and `flipped` which bits turn over.

struct Q4_0 {
  static constexpr int vectors = 4;
  static constexpr uint32_t flipped = 0;
  static const uint8_t* words(const uint8_t* block) { return block + 2; }
  static void scales(const uint8_t* block, const Record& to) { to.head(0, block); }
};
struct Q4_1 {
  static constexpr int vectors = 4;
  static constexpr uint32_t flipped = 0;
  static const uint8_t* words(const uint8_t* block) { return block + 4; }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block);
    to.head(1, block + 2);
  }
};
struct Q5_0 {
  static void codes(const uint8_t* block, int, uint8_t* out) {
    half_bytes(block + 6, out);
    fifth_bits(load_u32(block + 2), out);
  }
  static void scales(const uint8_t* block, const Record& to) { to.head(0, block); }
};
struct Q5_1 {
  static void codes(const uint8_t* block, int, uint8_t* out) {
    half_bytes(block + 8, out);
    fifth_bits(load_u32(block + 4), out);
  }
  static void scales(const uint8_t* block, const Record& to) { Q4_1::scales(block, to); }
};
struct Q8_0 {
  static constexpr int vectors = 8;
  static constexpr uint32_t flipped = 0x80808080;
  static const uint8_t* words(const uint8_t* block) { return block + 2; }
  static void scales(const uint8_t* block, const Record& to) { to.head(0, block); }
};

void two_bits(const uint8_t* qs, int sub, uint8_t* out) {
  const int shift = 2 * (sub % 4);
  for (int i = 0; i < 32; ++i) out[i] = uint8_t(qs[32 * (sub / 4) + i] >> shift) & 3;
}

struct Q2_K {
  static void codes(const uint8_t* block, int sub, uint8_t* out) { two_bits(block + 16, sub, out); }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block + 80);
    to.head(1, block + 82);
    for (int sub = 0; sub < 8; ++sub) to.bytes(sub, block[2 * sub], block[2 * sub + 1]);
  }
};
struct Q3_K {
  static void codes(const uint8_t* block, int sub, uint8_t* out) {
    two_bits(block + 32, sub, out);
    for (int i = 0; i < 32; ++i) out[i] |= uint8_t((block[i] >> sub & 1) << 2);
  }
  static uint8_t scale(const uint8_t* packed, int i) {
    const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4, high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
    return uint8_t((low | high << 4) - 32);
  }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block + 108);
    for (int sub = 0; sub < 8; ++sub) to.bytes(sub, scale(block + 96, 2 * sub), scale(block + 96, 2 * sub + 1));
  }
};
struct Q4_K {
  static void codes(const uint8_t* block, int sub, uint8_t* out) {
    const uint8_t* qs = block + 16 + 32 * (sub / 2);
    const int shift = 4 * (sub % 2);
    for (int i = 0; i < 32; ++i) out[i] = uint8_t(qs[i] >> shift) & 15;
  }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block);
    to.head(1, block + 2);
    for (int sub = 0; sub < 8; ++sub) {
      const ScaleMin of = unpack_scale_min(block + 4, sub);
      to.bytes(sub, of.scale, of.min);
    }
  }
};
struct Q5_K {
  static void codes(const uint8_t* block, int sub, uint8_t* out) {
    Q4_K::codes(block + 32, sub, out);
    for (int i = 0; i < 32; ++i) out[i] |= uint8_t((block[16 + i] >> sub & 1) << 4);
  }
  static void scales(const uint8_t* block, const Record& to) { Q4_K::scales(block, to); }
};
struct Q6_K {
  static void codes(const uint8_t* block, int sub, uint8_t* out) {
    const int half = sub / 4, quarter = sub % 4, low_shift = 4 * (quarter / 2), high_shift = 2 * quarter;
    const uint8_t *low = block + 64 * half + 32 * (quarter % 2), *high = block + 128 + 32 * half;
    for (int i = 0; i < 32; ++i) {
      out[i] = uint8_t((uint8_t(low[i] >> low_shift) & 15) | (uint8_t(high[i] >> high_shift) & 3) << 4);
    }
  }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block + 208);
    for (int sub = 0; sub < 8; ++sub) to.bytes(sub, block[192 + 2 * sub], block[193 + 2 * sub]);
  }
};

/// What vector j adds to which plane: vector index and left shift for its low, middle and high bits.
/// planes[vector][row] |= part of words[j][row].
void add_word_planes(int bits, const uint32_t (&words)[8][kGroup], uint32_t* planes) {
  const auto plane = [&](int vector) { return planes + vector * kGroup; };
  for (int j = 0; j < 8; ++j) {
    const uint32_t* w = words[j];
    if (bits >= 4) {
      uint32_t* to = plane(j % 4);
      for (int r = 0; r < kGroup; ++r) to[r] = j < 4 ? w[r] & 0x0f0f0f0f : to[r] | (w[r] & 0x0f0f0f0f) << 4;
    }
    if (bits == 2 || bits == 3 || bits == 6) {
      uint32_t* to = plane((bits == 6 ? 4 : 0) + j / 4);
      const int from = bits == 6 ? 4 : 0, shift = 2 * (j % 4);
      for (int r = 0; r < kGroup; ++r) {
        const uint32_t two = (w[r] >> from & 0x03030303) << shift;
        to[r] = j % 4 == 0 ? two : to[r] | two;
      }
    }
    if (bits == 3 || bits == 5) {
      uint32_t* to = plane(bits == 3 ? 2 : 4);
      const int from = bits - 1;
      for (int r = 0; r < kGroup; ++r) {
        const uint32_t one = (w[r] >> from & 0x01010101) << j;
        to[r] = j == 0 ? one : to[r] | one;
      }
    }
  }
}

/// Four codes of vector j back out of the planes.
uint32_t code_word(int bits, const uint8_t* block, int lane, int j) {
  const auto word = [&](int vector) { return load_u32(block + vector * 64 + 4 * lane); };
  if (bits == 8) return word(j);
  uint32_t code = 0;
  if (bits >= 4) code = word(j % 4) >> (j / 4 * 4) & 0x0f0f0f0f;
  if (bits == 2 || bits == 3) code = word(j / 4) >> (2 * (j % 4)) & 0x03030303;
  if (bits == 6) code |= (word(4 + j / 4) >> (2 * (j % 4)) & 0x03030303) << 4;
  if (bits == 3) code |= (word(2) >> j & 0x01010101) << 2;
  if (bits == 5) code |= (word(4) >> j & 0x01010101) << 4;
  return code;
}

/// The planes of one block of each row; `first`: the first row's.
template <class Block>
void add_planes(const QuantizedFormat& format, const TypeInfo& of, const uint8_t* first, size_t row, int rows,
                uint32_t* planes) {
  if constexpr (requires { Block::vectors; }) {
    for (int r = 0; r < rows; ++r) {
      const uint8_t* words = Block::words(first + size_t(r) * row);
      for (int v = 0; v < Block::vectors; ++v) planes[v * kGroup + r] = load_u32(words + 4 * v) ^ Block::flipped;
    }
  } else {
    alignas(64) uint8_t codes[32];
    alignas(64) uint32_t words[8][kGroup] = {};
    for (int sub = 0; sub < int(of.block_values / 32); ++sub) {
      for (int r = 0; r < rows; ++r) {
        Block::codes(first + size_t(r) * row, sub, codes);
        for (int j = 0; j < 8; ++j) words[j][r] = load_u32(codes + 4 * j);
      }
      add_word_planes(format.bits, words, planes);
      planes += format.block_code_bytes() / sizeof(uint32_t);
    }
  }
}

template <class Block>
void pack_group(const QuantizedFormat& format, Type type, const uint8_t* source, int rows, int64_t cols,
                uint8_t* group) {
  const TypeInfo& of = info(type);
  const size_t row = row_bytes(type, uint64_t(cols));
  const size_t code_bytes = of.block_values / 32 * format.block_code_bytes();
  uint8_t* const scales = group + format.code_bytes(cols);
  if (rows < kGroup) std::memset(group, 0, format.group_bytes(cols));
  for (int64_t b = 0; b < cols / of.block_values; ++b) {
    const uint8_t* const first = source + b * of.block_bytes;
    for (int r = 0; r < rows; ++r) {
      Block::scales(first + size_t(r) * row, Record{scales + b * format.record_bytes(), format, r});
    }
    add_planes<Block>(format, of, first, row, rows, reinterpret_cast<uint32_t*>(group + b * code_bytes));
  }
}

}  // namespace

void pack_quantized_group(Type type, const uint8_t* source, int rows, int64_t cols, uint8_t* group) {
  const QuantizedFormat& format = *format_of(type);
  switch (type) {
    case Type::Q4_0:
      return pack_group<Q4_0>(format, type, source, rows, cols, group);
    case Type::Q4_1:
      return pack_group<Q4_1>(format, type, source, rows, cols, group);
    case Type::Q5_0:
      return pack_group<Q5_0>(format, type, source, rows, cols, group);
    case Type::Q5_1:
      return pack_group<Q5_1>(format, type, source, rows, cols, group);
    case Type::Q8_0:
      return pack_group<Q8_0>(format, type, source, rows, cols, group);
    case Type::Q2_K:
      return pack_group<Q2_K>(format, type, source, rows, cols, group);
    case Type::Q3_K:
      return pack_group<Q3_K>(format, type, source, rows, cols, group);
    case Type::Q4_K:
      return pack_group<Q4_K>(format, type, source, rows, cols, group);
    case Type::Q5_K:
      return pack_group<Q5_K>(format, type, source, rows, cols, group);
    case Type::Q6_K:
      return pack_group<Q6_K>(format, type, source, rows, cols, group);
    case Type::F32:
    case Type::F16:
    case Type::BF16:
      return;  // has no blocks
  }
}

void unpack_quantized_lane(Type type, const uint8_t* group, int lane, int64_t cols, float* y) {
  const QuantizedFormat& format = *format_of(type);
  const uint8_t* scales = group + format.code_bytes(cols);
  for (int64_t b = 0; b < cols / 32; ++b) {
    const uint8_t* record = scales + (format.super ? b / 8 : b) * format.record_bytes();
    const uint8_t* bytes = record + format.head_bytes() + b % 8 * 32 + lane;  // of a super-block
    const float d = load_half(record + 2 * lane), m = format.minimum ? load_half(record + 32 + 2 * lane) : 0.0f;
    float scale[2] = {d, d}, minimum[2] = {m, m};
    if (format.super) {
      for (int h = 0; h < 2; ++h) {
        const uint8_t byte = bytes[format.halves ? 16 * h : 0];
        if (format.halves && format.minimum) {
          scale[h] = d * float(byte & 15);
          minimum[h] = -(m * float(byte >> 4));
        } else {
          scale[h] = d * (format.halves ? float(int8_t(byte)) : float(byte));
          minimum[h] = -(m * float(bytes[16]));
        }
      }
    }
    for (int j = 0; j < 8; ++j) {
      uint32_t word = code_word(format.bits, group + b * format.block_code_bytes(), lane, j);
      for (int i = 0; i < 4; ++i, word >>= 8) {
        const float value = scale[j / 4] * float(int(word & 255) - format.offset);
        y[32 * b + 4 * j + i] = format.minimum ? value + minimum[j / 4] : value;
      }
    }
  }
}

}  // namespace minigpt4::cpu
