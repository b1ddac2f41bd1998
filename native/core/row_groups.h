// Rows of a matrix side by side in groups, as a backend computes with them: what a file must know to hold such a matrix.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace minigpt4 {

class RowGroups {
 public:
  virtual ~RowGroups() = default;
  /// Rows side by side; the last group of a matrix may have fewer.
  virtual uint64_t group_rows() const noexcept = 0;
  /// Of each group, the last one too. Error ERR_SHAPE (cols no multiple of the type's block).
  virtual size_t group_bytes(Type type, uint64_t cols) const = 0;
  /// group = `count` rows (1 to group_rows()) of blocks as GGUF has them, one after the other; rows that are missing are zeros.
  virtual void pack(Type type, uint64_t cols, const void* rows, uint64_t count, void* group) const = 0;
  /// y[cols] = row `row` of a group, dequantized as decode_row does it.
  virtual void unpack(Type type, uint64_t cols, const void* group, uint64_t row, float* y) const = 0;

  uint64_t groups(uint64_t rows) const noexcept { return (rows + group_rows() - 1) / group_rows(); }
};

}  // namespace minigpt4
