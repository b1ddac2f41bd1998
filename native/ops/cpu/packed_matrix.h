// A weight as the CPU keeps it: 16 output rows side by side, see quantized_format.h for blocks.
#pragma once

#include <memory>

#include "core/arena.h"
#include "ops/cpu/levels/level.h"
#include "ops/ops.h"

namespace minigpt4::cpu {

/// Null for float types.
const QuantizedFormat* format_of(Type type) noexcept;

class PackedMatrix final : public Matrix {
 public:
  /// Memory for a matrix of this shape, contents undefined. Errors: ERR_OUT_OF_MEMORY, ERR_SHAPE (cols not a multiple
  /// of the type's block).
  PackedMatrix(std::shared_ptr<Arena> arena, Type type, int64_t rows, int64_t cols, const char* owner);
  /// A matrix that lies in the view's memory, which is only read. Errors: ERR_SHAPE likewise, ERR_FILE_FORMAT (not the bytes
  /// that the shape asks for, or not at a multiple of 64).
  explicit PackedMatrix(const GroupedView& view);
  ~PackedMatrix() override;
  /// Of the memory that it takes. Error ERR_SHAPE, likewise.
  static size_t bytes_of(Type type, int64_t rows, int64_t cols);
  PackedMatrix(const PackedMatrix&) = delete;
  PackedMatrix& operator=(const PackedMatrix&) = delete;

  int64_t groups() const noexcept { return padded(rows) / kGroup; }
  const uint8_t* data() const noexcept { return data_; }
  const QuantizedFormat* format() const noexcept { return format_; }
  size_t group_bytes() const noexcept { return group_bytes_; }

  /// False of a matrix in a view's memory.
  bool writable() const noexcept { return own_ != nullptr; }
  /// Fills groups [g0, g1) from the view that `view_rows` points at the first row of, where this is writable. Groups are
  /// independent.
  void pack(const void* view_rows, int64_t g0, int64_t g1);
  /// y[cols] = one row, dequantized.
  void unpack_row(int64_t row, float* y) const;

 private:
  std::shared_ptr<Arena> arena_;        // null where the memory is a view's
  std::shared_ptr<const void> memory_;  // the view's
  const QuantizedFormat* format_;
  size_t group_bytes_;
  uint8_t* own_ = nullptr;  // what data_ points at, in the arena
  const uint8_t* data_;
};

/// Of one group. Error ERR_SHAPE, as above.
size_t bytes_of_group(Type type, int64_t cols);
/// By type, what follows.
void pack_rows(Type type, const uint8_t* source, int rows, int64_t cols, uint8_t* group);
void unpack_lane(Type type, const uint8_t* group, int lane, int64_t cols, float* y);
/// One group of `rows` (1 to 16) rows from `source` on; the other rows become zero.
void pack_float_group(size_t value_bytes, const uint8_t* source, int rows, int64_t cols, uint8_t* group);
void pack_quantized_group(Type type, const uint8_t* source, int rows, int64_t cols, uint8_t* group);
/// y[cols] = row `lane` of a group.
void unpack_float_lane(Type type, const uint8_t* group, int lane, int64_t cols, float* y);
void unpack_quantized_lane(Type type, const uint8_t* group, int lane, int64_t cols, float* y);

}  // namespace minigpt4::cpu
