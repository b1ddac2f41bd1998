// The packed form of float weights, and what all types share.
#include "ops/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace minigpt4::cpu {

namespace {

/// [rows][cols] to [cols][16]. Goes through the rows a cache line at a time: with rows a power of two apart sixteen
/// lines fall into one set of the cache, and would push each other out before they are used up.
template <class Value>
void interleave(const uint8_t* source, int rows, int64_t cols, uint8_t* group) {
  constexpr int64_t line = 64 / sizeof(Value);
  Value part[kGroup][line] = {};
  for (int64_t k = 0; k < cols; k += line) {
    const int64_t n = std::min(line, cols - k);
    for (int r = 0; r < rows; ++r) std::memcpy(part[r], source + (r * cols + k) * sizeof(Value), n * sizeof(Value));
    Value* to = reinterpret_cast<Value*>(group) + k * kGroup;
    for (int64_t i = 0; i < n; ++i) {
      for (int r = 0; r < kGroup; ++r) to[i * kGroup + r] = part[r][i];
    }
  }
}

}  // namespace

size_t bytes_of_group(Type type, int64_t cols) {
  const size_t row = row_bytes(type, uint64_t(cols));  // checks the columns
  const QuantizedFormat* format = format_of(type);
  return format ? format->group_bytes(cols) : row * kGroup;
}

const QuantizedFormat* format_of(Type type) noexcept {
  //                                   bits offset minimum halves super
  static constexpr QuantizedFormat q4_0{4, 8, false, false, false};
  static constexpr QuantizedFormat q4_1{4, 0, true, false, false};
  static constexpr QuantizedFormat q5_0{5, 16, false, false, false};
  static constexpr QuantizedFormat q5_1{5, 0, true, false, false};
  static constexpr QuantizedFormat q8_0{8, 128, false, false, false};
  static constexpr QuantizedFormat q2_k{2, 0, true, true, true};
  static constexpr QuantizedFormat q3_k{3, 4, false, true, true};
  static constexpr QuantizedFormat q4_k{4, 0, true, false, true};
  static constexpr QuantizedFormat q5_k{5, 0, true, false, true};
  static constexpr QuantizedFormat q6_k{6, 32, false, true, true};
  switch (type) {
    case Type::F32:
    case Type::F16:
    case Type::BF16:
      return nullptr;
    case Type::Q4_0:
      return &q4_0;
    case Type::Q4_1:
      return &q4_1;
    case Type::Q5_0:
      return &q5_0;
    case Type::Q5_1:
      return &q5_1;
    case Type::Q8_0:
      return &q8_0;
    case Type::Q2_K:
      return &q2_k;
    case Type::Q3_K:
      return &q3_k;
    case Type::Q4_K:
      return &q4_k;
    case Type::Q5_K:
      return &q5_k;
    case Type::Q6_K:
      return &q6_k;
  }
  return nullptr;
}

PackedMatrix::PackedMatrix(std::shared_ptr<Arena> arena, Type type_, int64_t rows_, int64_t cols_, const char* owner)
    : arena_(std::move(arena)), format_(format_of(type_)), group_bytes_(bytes_of_group(type_, cols_)) {
  type = type_;
  rows = rows_;
  cols = cols_;
  bytes = size_t(groups()) * group_bytes_;
  own_ = static_cast<uint8_t*>(arena_->take(bytes, owner));
  data_ = own_;
}

PackedMatrix::PackedMatrix(const GroupedView& view)
    : memory_(view.memory),
      format_(format_of(view.type)),
      group_bytes_(bytes_of_group(view.type, view.cols)),
      data_(static_cast<const uint8_t*>(view.data)) {
  constexpr uintptr_t alignment = 64;
  if (view.rows < 1 || view.cols < 1) fail(code::shape, "a matrix has ", view.rows, " rows of ", view.cols, " values");
  type = view.type;
  rows = view.rows;
  cols = view.cols;
  // by division: sizes out of a file may be such that their product is not what it seems
  const size_t count = size_t(groups());
  if (view.bytes % group_bytes_ != 0 || view.bytes / group_bytes_ != count) {
    fail(code::file_format, rows, " rows of ", cols, " values of type ", name(type), " take ", count, " groups of ",
         group_bytes_, " bytes, found ", view.bytes, " bytes");
  }
  if (reinterpret_cast<uintptr_t>(data_) % alignment != 0) {
    fail(code::file_format, "groups of rows are expected at a multiple of ", alignment, ", found them ",
         reinterpret_cast<uintptr_t>(data_) % alignment, " bytes behind one");
  }
  bytes = view.bytes;
}

PackedMatrix::~PackedMatrix() {
  if (own_) arena_->give(own_);
}

size_t PackedMatrix::bytes_of(Type type, int64_t rows, int64_t cols) {
  return size_t(padded(rows) / kGroup) * bytes_of_group(type, cols);
}

void PackedMatrix::pack(const void* view_rows, int64_t g0, int64_t g1) {
  const size_t row = row_bytes(type, uint64_t(cols));
  for (int64_t g = g0; g < g1; ++g) {
    const uint8_t* source = static_cast<const uint8_t*>(view_rows) + size_t(g) * kGroup * row;
    pack_rows(type, source, int(std::min<int64_t>(kGroup, rows - g * kGroup)), cols, own_ + size_t(g) * group_bytes_);
  }
}

void PackedMatrix::unpack_row(int64_t row, float* y) const {
  unpack_lane(type, data_ + size_t(row / kGroup) * group_bytes_, int(row % kGroup), cols, y);
}

void pack_rows(Type type, const uint8_t* source, int rows, int64_t cols, uint8_t* group) {
  is_quantized(type) ? pack_quantized_group(type, source, rows, cols, group)
                     : pack_float_group(info(type).block_bytes, source, rows, cols, group);
}

void unpack_lane(Type type, const uint8_t* group, int lane, int64_t cols, float* y) {
  is_quantized(type) ? unpack_quantized_lane(type, group, lane, cols, y)
                     : unpack_float_lane(type, group, lane, cols, y);
}

void pack_float_group(size_t value_bytes, const uint8_t* source, int rows, int64_t cols, uint8_t* group) {
  value_bytes == 4 ? interleave<uint32_t>(source, rows, cols, group) : interleave<uint16_t>(source, rows, cols, group);
}

void unpack_float_lane(Type type, const uint8_t* group, int lane, int64_t cols, float* y) {
  const float* wide = reinterpret_cast<const float*>(group) + lane;
  const uint16_t* narrow = reinterpret_cast<const uint16_t*>(group) + lane;
  for (int64_t k = 0; k < cols; ++k) {
    y[k] = type == Type::F32   ? wide[k * kGroup]
           : type == Type::F16 ? half_to_float(narrow[k * kGroup])
                               : bf16_to_float(narrow[k * kGroup]);
  }
}

}  // namespace minigpt4::cpu
