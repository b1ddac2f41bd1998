// How each block type lies in memory once it is packed for the kernels.
//
// A group is 16 output rows side by side. Along k it has blocks of 32 values; a block's 16 · 32 codes are eight vectors
// of 64 bytes, vector j holding values 4j … 4j + 3 of row r in bytes 4r … 4r + 3, which is how a 4-way integer dot
// product wants them. Codes are unsigned and cut into planes of 64-byte vectors so that no bit is wasted:
//
//   plane   vectors  code vector j is found in
//   4 bits     4     vector j mod 4, low half bytes for j < 4, high ones above
//   2 bits     2     vector j div 4, bits 2 (j mod 4) and the next
//   1 bit      1     bit j
//   8 bits     8     vector j
//
// Scales lie right before the codes that they belong to, so that a group, and a matrix, is read from its first byte to its
// last: the one order in which a processor brings memory at its full speed. A record is the scales of some blocks and then
// their planes, both from a cache line on. The scales are 16 halfs of d (and of m or dmin) a block, a record having two
// blocks where there is no m, else one, or for the types with super-blocks of 256 once a record, which is a super-block,
// followed by 32 bytes for each of its blocks: scale and minimum of 16 rows, or the scales of a block's two halves (Q2_K:
// each byte scale | minimum << 4, as in the file). What is left of a line before the planes is zero. The last record of a
// group has as many blocks as are left.
//
//   type   planes  bits a weight: packed  in the file   ratio
//   Q4_0   4        4.5                   4.5           1.00
//   Q4_1   4        5.0                   5.0           1.00
//   Q5_0   4 + 1    5.5                   5.5           1.00
//   Q5_1   4 + 1    6.0                   6.0           1.00
//   Q8_0   8        8.5                   8.5           1.00
//   Q2_K   2        2.625                 2.625         1.00
//   Q3_K   2 + 1    3.625                 3.4375        1.05  (6-bit scales take a byte)
//   Q4_K   4        4.625                 4.5           1.03  (likewise)
//   Q5_K   4 + 1    5.625                 5.5           1.02  (likewise)
//   Q6_K   4 + 2    6.625                 6.5625        1.01
//
// plus rows up to a multiple of 16.
//
// Model files can hold this order (core/gguf_layout.h): whoever changes it raises the layout's version there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minigpt4::cpu {

struct QuantizedFormat {
  int bits;      // of a code
  int offset;    // a code stands for code - offset
  bool minimum;  // values have an additive part, too
  bool halves;   // scales go by 16 values, not 32
  bool super;    // d and dmin go by 256 values

  /// Kernels are compiled once for each of these.
  constexpr int kind() const { return bits * 8 + (minimum ? 4 : 0) + (halves ? 2 : 0) + (super ? 1 : 0); }
  constexpr int sums() const { return halves ? 2 : 1; }
  constexpr size_t block_code_bytes() const { return size_t(bits) * 64; }
  constexpr int record_blocks() const { return super ? 8 : minimum ? 1 : 2; }
  /// Of the 16-bit scales of a block or super-block.
  constexpr size_t head_bytes() const { return minimum ? 64 : 32; }
  /// From a record's start to its codes.
  constexpr size_t scale_bytes() const { return super ? (head_bytes() + 8 * 32 + 63) / 64 * 64 : 64; }
  constexpr size_t record_bytes() const { return scale_bytes() + size_t(record_blocks()) * block_code_bytes(); }
  /// Where the record of block b, block b's codes and its (or its super-block's) 16-bit scales begin in a group.
  constexpr size_t record_at(int64_t b) const { return size_t(b / record_blocks()) * record_bytes(); }
  constexpr size_t codes_at(int64_t b) const {
    return record_at(b) + scale_bytes() + size_t(b % record_blocks()) * block_code_bytes();
  }
  constexpr size_t head_at(int64_t b) const {
    return record_at(b) + (super ? 0 : size_t(b % record_blocks()) * head_bytes());
  }
  constexpr size_t group_bytes(int64_t cols) const {
    const int64_t blocks = cols / 32, left = blocks % record_blocks();
    return record_at(blocks) + (left > 0 ? scale_bytes() + size_t(left) * block_code_bytes() : 0);
  }
};

}  // namespace minigpt4::cpu
