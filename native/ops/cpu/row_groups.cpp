// The packed layout for those who write and read files.
#include "core/row_groups.h"

#include "ops/cpu/packed_matrix.h"
#include "ops/ops.h"

namespace minigpt4 {

namespace {

class CpuRowGroups final : public RowGroups {
 public:
  uint64_t group_rows() const noexcept override { return cpu::kGroup; }
  size_t group_bytes(Type type, uint64_t cols) const override { return cpu::bytes_of_group(type, int64_t(cols)); }
  void pack(Type type, uint64_t cols, const void* rows, uint64_t count, void* group) const override {
    cpu::pack_rows(type, static_cast<const uint8_t*>(rows), int(count), int64_t(cols), static_cast<uint8_t*>(group));
  }
  void unpack(Type type, uint64_t cols, const void* group, uint64_t row, float* y) const override {
    cpu::unpack_lane(type, static_cast<const uint8_t*>(group), int(row), int64_t(cols), y);
  }
};

}  // namespace

const RowGroups& cpu_row_groups() noexcept {
  static const CpuRowGroups groups;
  return groups;
}

}  // namespace minigpt4
