// GGUF files: a reader over a mapped file that trusts nothing in it, and a streaming writer.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "core/dtype.h"
#include "core/mapped_file.h"
#include "core/row_groups.h"
#include "core/thread_pool.h"

namespace minigpt4 {

/// A metadata value. Integers of all widths are held in 64 bits; `type` keeps what the file says (GGUF's numbers:
/// 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array, 10 u64, 11 i64, 12 f64).
struct GgufValue {
  uint32_t type = 0;
  uint32_t element_type = 0;  // of an array
  // u64: every unsigned integer; i64: every signed one. f64 holds f32 and f64. Arrays likewise by element.
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>, std::vector<int64_t>,
               std::vector<double>, std::vector<std::string>, std::vector<bool>>
      value;
};

struct GgufTensor {
  std::string name;
  Type type = Type::F32;
  std::vector<uint64_t> shape;      // the format's order: shape[0] is contiguous (a weight's input width)
  uint64_t offset = 0;              // from the start of the file's part that holds it
  uint64_t bytes = 0;               // in the file
  size_t part = 0;                  // of the file, from 0
  const std::byte* data = nullptr;  // rows of blocks, into the mapping; null where they are grouped
  // The same of a matrix in groups of rows (core/gguf_layout.h), `bytes` of them, which nobody has compared with the shape yet;
  // null elsewhere.
  const std::byte* grouped = nullptr;
  uint64_t values() const noexcept;
};

/// An open GGUF file (version 2 or 3, little-endian), all its parts if it is split (`…-00001-of-0000N.gguf`).
/// Opening checks everything but the tensor data: counts against the bytes left, names unique, shapes without
/// overflow, first size divisible by the block, offsets aligned, in the file and not overlapping, types known.
class GgufFile {
 public:
  /// Errors: those of MappedFile, ERR_FILE_FORMAT (message: file, what was expected, what was found),
  /// ERR_UNSUPPORTED (a tensor type or a format version that is valid but not read here).
  explicit GgufFile(const std::string& path);

  const std::string& path() const noexcept;
  uint32_t version() const noexcept { return version_; }
  /// In the file's order.
  const std::vector<std::pair<std::string, GgufValue>>& keys() const noexcept { return keys_; }
  const std::vector<GgufTensor>& tensors() const noexcept { return tensors_; }
  /// Null when absent.
  const GgufValue* find(std::string_view key) const noexcept;
  const GgufTensor* tensor(std::string_view name) const noexcept;

  // Typed access. A key of another kind, negative where unsigned is asked, or beyond the range: ERR_FILE_FORMAT.
  // Without a default an absent key is ERR_FILE_FORMAT too.
  uint64_t unsigned_key(std::string_view key) const;
  uint64_t unsigned_key(std::string_view key, uint64_t otherwise) const;
  double float_key(std::string_view key) const;
  double float_key(std::string_view key, double otherwise) const;
  bool bool_key(std::string_view key, bool otherwise) const;
  std::string string_key(std::string_view key) const;
  std::string string_key(std::string_view key, std::string_view otherwise) const;
  const std::vector<std::string>& strings_key(std::string_view key) const;
  std::vector<double> floats_key(std::string_view key) const;     // f32 or f64 array
  std::vector<int64_t> integers_key(std::string_view key) const;  // any integer array

  /// MappedFile::check_unchanged of every part.
  void check_unchanged() const;
  /// MappedFile::release of the tensor's bytes.
  void release(const GgufTensor& tensor) const noexcept;
  /// The file that holds the tensor's bytes: they stay mapped as long as it is held.
  const std::shared_ptr<const MappedFile>& part_of(const GgufTensor& tensor) const { return parts_[tensor.part]; }

 private:
  std::vector<std::shared_ptr<const MappedFile>> parts_;
  uint32_t version_ = 0;
  std::vector<std::pair<std::string, GgufValue>> keys_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> key_index_, tensor_index_;
};

struct GgufTensorPlan {
  std::string name;
  Type type;
  std::vector<uint64_t> shape;  // contiguous first
  bool grouped = false;         // a matrix, stored in the writer's groups of rows
};

/// Writes a GGUF 3 file in one pass: everything that comes before the data is known first, then rows stream in.
/// The file is written as `PATH.part-PID` and renamed by finish(); a writer destroyed before that removes it.
class GgufWriter {
 public:
  /// `groups` (null: no tensor is planned in groups) outlives the writer. Keys that say what lies in groups are added.
  /// Errors: ERR_FILE_READ (cannot create), ERR_ARGUMENT (double names, shapes that do not fit the type's block).
  GgufWriter(std::string path, const std::vector<std::pair<std::string, GgufValue>>& keys,
             std::vector<GgufTensorPlan> tensors, uint32_t alignment = 32, const RowGroups* groups = nullptr);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  /// Appends values to the current tensor (tensors come in the plan's order) in the source type `source` (F32, F16,
  /// BF16, or any type equal to the plan's, copied as it is), a whole number of the target's rows. Encodes with
  /// encode_row. When the tensor is full the next one becomes current. Errors: ERR_ARGUMENT (too many, half rows).
  void write(Type source, const void* values, uint64_t count);
  const GgufTensorPlan* current() const noexcept;  // null when all are written
  /// Flushes, checks that every tensor is complete (ERR_ARGUMENT), renames over `path`.
  void finish();

 private:
  std::string path_, part_path_;
  std::FILE* file_ = nullptr;
  std::vector<GgufTensorPlan> tensors_;
  size_t tensor_ = 0;
  uint64_t written_ = 0;  // values of the current tensor
  uint32_t alignment_;
  const RowGroups* groups_;
  std::vector<std::byte> ungrouped_;  // rows of the current tensor that are not put yet
  uint64_t position_ = 0;             // bytes put so far
  std::unique_ptr<ThreadPool> pool_;  // for encoding; made when first needed
  void put(const void* bytes, size_t count);
  void put_rows(const std::byte* rows, uint64_t count, bool last);
  void pad();
  void encode(Type source, const std::byte* values, uint64_t rows);
  void close_and_remove() noexcept;
};

}  // namespace minigpt4
