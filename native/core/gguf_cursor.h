// Reads a mapped GGUF part from front to back. Every read is checked against the bytes left, so that no number in the
// file decides what is touched or allocated.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/mapped_file.h"

namespace minigpt4 {

/// A name out of a file, fit for a message: in quotes, without control characters, cut when long.
std::string quoted(std::string_view name);

class GgufCursor {
 public:
  /// Memory that what is read from all parts of one file may take, an upper estimate. Published models need some tens
  /// of MiB; a file of a few GiB can ask for many times its size.
  struct Budget {
    uint64_t left = uint64_t(1) << 30;
  };

  GgufCursor(const MappedFile& file, Budget& budget) : file_(file), budget_(budget) {}

  size_t position() const noexcept { return position_; }
  size_t left() const noexcept { return file_.size() - position_; }
  const std::string& path() const noexcept { return file_.path(); }

  /// The next sizeof(T) bytes as a little-endian number; `what` is for the message if they are not there.
  template <class T>
  T number(const char* what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, file_.data() + position_, sizeof value);
    position_ += sizeof value;
    return value;
  }
  /// A u64 length and that many bytes.
  std::string string(const char* what) {
    const size_t start = position_;
    const uint64_t length = number<uint64_t>(what);
    if (length > left()) {
      fail(code::file_format, path(), " is damaged or cut off: ", what, " at byte ", start, " claims ", length,
           " bytes, ", left(), " are left in the file");
    }
    charge(length, what);
    std::string text(reinterpret_cast<const char*>(file_.data() + position_), size_t(length));
    position_ += size_t(length);
    return text;
  }
  /// A u64 count of things that take at least `least` bytes each in the file and `held` each in memory.
  uint64_t count(const char* what, size_t least, size_t held) {
    const size_t start = position_;
    const uint64_t count = number<uint64_t>(what);
    if (count > left() / least) {
      fail(code::file_format, path(), " is damaged or cut off: ", what, " at byte ", start, " is ", count,
           ", for which the ", left(), " bytes left in the file are too few");
    }
    if (count > (uint64_t(1) << 30)) {
      fail(code::file_format, path(), ": ", what, " at byte ", start, " is ", count, ", expected at most 2^30");
    }
    charge(count * held, what);
    return count;
  }

 private:
  const MappedFile& file_;
  Budget& budget_;
  size_t position_ = 0;

  void need(size_t bytes, const char* what) {
    if (bytes > left()) {
      fail(code::file_format, path(), " is cut off: expected ", what, " (", bytes, " bytes) at byte ", position_,
           ", the file has ", file_.size(), " bytes");
    }
  }
  void charge(uint64_t bytes, const char* what) {
    if (bytes > budget_.left) {
      fail(code::file_format, path(), ": what comes before the tensor data would take more than 1 GiB of memory (at ",
           what, ", byte ", position_, ")");
    }
    budget_.left -= bytes;
  }
};

}  // namespace minigpt4
