// Blocks of the file to the packed planes and back. Each type says which words of planes its block's codes make, how they
// are read back, and where its scales lie; everything else goes by 32-bit words of four codes.
#include <algorithm>
#include <cstring>

#include "core/block_layout.h"
#include "ops/cpu/packed_matrix.h"

namespace minigpt4::cpu {

namespace {

/// What one row gives to the planes of a block of 32 codes: a word for each of their vectors.
using Planes = uint32_t[8];

// Words of one plane, made of eight codes at a time, each in a byte.

uint64_t load_eight(const uint8_t* bytes) {
  uint64_t eight;
  std::memcpy(&eight, bytes, sizeof eight);
  return eight;
}
constexpr uint64_t eight_times(uint8_t byte) { return 0x0101010101010101u * byte; }

/// Of the low or high halves of 32 bytes.
void four_bits(const uint8_t* from, bool high, uint32_t* planes) {
  for (int i = 0; i < 2; ++i) {
    const uint64_t first = load_eight(from + 8 * i), second = load_eight(from + 16 + 8 * i);
    const uint64_t both = high ? (first >> 4 & eight_times(0x0f)) | (second & eight_times(0xf0))
                               : (first & eight_times(0x0f)) | (second & eight_times(0x0f)) << 4;
    std::memcpy(planes + 2 * i, &both, sizeof both);
  }
}
/// Of bits `shift` and the next of 32 bytes.
void two_bits(const uint8_t* from, int shift, uint32_t* planes) {
  for (int i = 0; i < 2; ++i) {
    const auto part = [&](int k) { return load_eight(from + 16 * i + 8 * k) >> shift & eight_times(3); };
    const uint64_t apart = part(0) | part(1) << 4;
    planes[i] = uint32_t(apart) | uint32_t(apart >> 32) << 2;
  }
}
/// Of bit `shift` of 32 bytes.
void one_bit(const uint8_t* from, int shift, uint32_t* planes) {
  uint64_t apart = 0;
  for (int k = 0; k < 4; ++k) apart |= (load_eight(from + 8 * k) >> shift & eight_times(1)) << 2 * k;
  planes[0] = uint32_t(apart) | uint32_t(apart >> 32) << 1;
}
/// Of 32 bits, value n's the bit n: to bit n div 4 of byte n mod 4, by swapping digits of the binary n.
void one_bit(uint32_t bits, uint32_t* planes) {
  const auto swap = [&](int shift, uint32_t lower) {
    const uint32_t differ = (bits >> shift ^ bits) & lower;
    bits ^= differ | differ << shift;
  };
  swap(14, 0x0000cccc);  // 16 and 2
  swap(7, 0x00aa00aa);   // 8 and 1
  swap(2, 0x0c0c0c0c);   // 4 and 2
  swap(1, 0x22222222);   // 2 and 1
  planes[0] = bits;
}

/// One row's place in a record: in the halfs at its head, and in the bytes of each block behind it.
struct Record {
  uint8_t *halfs, *blocks;
  void head(int which, const uint8_t* half) const { std::memcpy(halfs + 32 * which, half, 2); }
  void bytes(int sub, uint8_t first, uint8_t second) const {
    blocks[32 * sub] = first;
    blocks[32 * sub + 16] = second;
  }
};

// One struct a type: planes(block, sub, out) gives what the row's sub-block has in the planes, scales(block, record) the rest.

struct Q4_0 {
  // codes of Q4_0, Q4_1, Q5_0 and Q5_1 lie in the file as in the plane
  static void planes(const uint8_t* block, int, Planes& out) { std::memcpy(out, block + 2, 16); }
  static void scales(const uint8_t* block, const Record& to) { to.head(0, block); }
};
struct Q4_1 {
  static void planes(const uint8_t* block, int, Planes& out) { std::memcpy(out, block + 4, 16); }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block);
    to.head(1, block + 2);
  }
};
struct Q5_0 {
  static void planes(const uint8_t* block, int, Planes& out) {
    std::memcpy(out, block + 6, 16);
    one_bit(load_u32(block + 2), out + 4);
  }
  static void scales(const uint8_t* block, const Record& to) { to.head(0, block); }
};
struct Q5_1 {
  static void planes(const uint8_t* block, int, Planes& out) {
    std::memcpy(out, block + 8, 16);
    one_bit(load_u32(block + 4), out + 4);
  }
  static void scales(const uint8_t* block, const Record& to) { Q4_1::scales(block, to); }
};
struct Q8_0 {
  static void planes(const uint8_t* block, int, Planes& out) {
    for (int i = 0; i < 8; ++i) out[i] = load_u32(block + 2 + 4 * i) ^ 0x80808080;
  }
  static void scales(const uint8_t* block, const Record& to) { to.head(0, block); }
};
struct Q2_K {
  static void planes(const uint8_t* block, int sub, Planes& out) {
    two_bits(block + 16 + 32 * (sub / 4), 2 * (sub % 4), out);
  }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block + 80);
    to.head(1, block + 82);
    for (int sub = 0; sub < 8; ++sub) to.bytes(sub, block[2 * sub], block[2 * sub + 1]);
  }
};
struct Q3_K {
  static void planes(const uint8_t* block, int sub, Planes& out) {
    two_bits(block + 32 + 32 * (sub / 4), 2 * (sub % 4), out);
    one_bit(block, sub, out + 2);
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
  static void planes(const uint8_t* block, int sub, Planes& out) {
    four_bits(block + 16 + 32 * (sub / 2), sub % 2 == 1, out);
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
  static void planes(const uint8_t* block, int sub, Planes& out) {
    Q4_K::planes(block + 32, sub, out);
    one_bit(block + 16, sub, out + 4);
  }
  static void scales(const uint8_t* block, const Record& to) { Q4_K::scales(block, to); }
};
struct Q6_K {
  static void planes(const uint8_t* block, int sub, Planes& out) {
    const int half = sub / 4, quarter = sub % 4;
    four_bits(block + 64 * half + 32 * (quarter % 2), quarter >= 2, out);
    two_bits(block + 128 + 32 * half, 2 * quarter, out + 4);
  }
  static void scales(const uint8_t* block, const Record& to) {
    to.head(0, block + 208);
    for (int sub = 0; sub < 8; ++sub) to.bytes(sub, block[192 + 2 * sub], block[193 + 2 * sub]);
  }
};

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

// g++ and clang have vectors for what every machine's registers hold, and find the shuffles in these lists.
typedef uint32_t Words __attribute__((vector_size(16)));

Words first_words(Words a, Words b) { return Words{a[0], b[0], a[1], b[1]}; }
Words last_words(Words a, Words b) { return Words{a[2], b[2], a[3], b[3]}; }
Words first_pairs(Words a, Words b) { return Words{a[0], a[1], b[0], b[1]}; }
Words last_pairs(Words a, Words b) { return Words{a[2], a[3], b[2], b[3]}; }

/// planes[vector][row] = of[row][vector], four by four.
void transpose(const Planes (&of)[kGroup], int vectors, uint32_t* planes) {
  for (int v = 0; v < vectors; v += 4) {
    for (int r = 0; r < kGroup; r += 4) {
      Words in[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&in[i], &of[r + i][v], sizeof in[i]);
      const Words first01 = first_words(in[0], in[1]), first23 = first_words(in[2], in[3]);
      const Words last01 = last_words(in[0], in[1]), last23 = last_words(in[2], in[3]);
      const Words out[4] = {first_pairs(first01, first23), last_pairs(first01, first23), first_pairs(last01, last23),
                            last_pairs(last01, last23)};
      for (int i = 0; i < std::min(4, vectors - v); ++i) {
        std::memcpy(planes + (v + i) * kGroup + r, &out[i], sizeof out[i]);
      }
    }
  }
}

template <class Block>
void pack_group(const QuantizedFormat& format, Type type, const uint8_t* source, int rows, int64_t cols,
                uint8_t* group) {
  // in variables: bytes are written below, and for all the compiler knows they could be the format's own
  const int block_values = info(type).block_values, bits = format.bits;
  const size_t block_bytes = info(type).block_bytes, row = row_bytes(type, uint64_t(cols));
  const size_t plane_bytes = format.block_code_bytes(), head_bytes = format.head_bytes();
  const size_t scale_bytes = format.scale_bytes(), record_bytes = format.record_bytes();
  const int subs = block_values / 32, at_once = format.record_blocks() / subs;  // blocks of the file a record
  uint8_t *record = group, *planes = nullptr;
  alignas(64) Planes of_rows[kGroup] = {};
  for (int64_t b = 0; b < cols / block_values; ++b) {
    if (b % at_once == 0) {
      record = group + size_t(b / at_once) * record_bytes;
      planes = record + scale_bytes;
      std::memset(record, 0, scale_bytes);  // rows that are missing, and what stays unused
    }
    const uint8_t* const first = source + size_t(b) * block_bytes;
    // The next group's rows come in as one stream: sixteen streams are more than a processor looks ahead in.
    const uint8_t* const next = source + size_t(kGroup) * (row + size_t(b) * block_bytes);
    for (size_t at = 0; at < kGroup * block_bytes; at += 64) __builtin_prefetch(next + at);
    for (int r = 0; r < rows; ++r) {
      uint8_t* const head = record + size_t(b % at_once) * head_bytes;
      Block::scales(first + size_t(r) * row, Record{head + 2 * r, head + head_bytes + r});
    }
    for (int sub = 0; sub < subs; ++sub, planes += plane_bytes) {
      for (int r = 0; r < rows; ++r) Block::planes(first + size_t(r) * row, sub, of_rows[r]);
      transpose(of_rows, bits, reinterpret_cast<uint32_t*>(planes));
    }
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
  for (int64_t b = 0; b < cols / 32; ++b) {
    const uint8_t* head = group + format.head_at(b);
    const uint8_t* bytes = head + format.head_bytes() + b % 8 * 32 + lane;  // of a super-block
    const float d = load_half(head + 2 * lane), m = format.minimum ? load_half(head + 32 + 2 * lane) : 0.0f;
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
      uint32_t word = code_word(format.bits, group + format.codes_at(b), lane, j);
      for (int i = 0; i < 4; ++i, word >>= 8) {
        const float value = scale[j / 4] * float(int(word & 255) - format.offset);
        y[32 * b + 4 * j + i] = format.minimum ? value + minimum[j / 4] : value;
      }
    }
  }
}

}  // namespace minigpt4::cpu
