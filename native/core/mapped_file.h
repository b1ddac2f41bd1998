// A file mapped for reading. A file that shrinks while it is mapped gives an error, not a SIGBUS that ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace minigpt4 {

class MappedFile {
 public:
  /// Errors: ERR_FILE_NOT_FOUND (missing, or a directory), ERR_FILE_READ, ERR_FILE_FORMAT (empty).
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  const std::string& path() const noexcept { return path_; }

  /// Throws ERR_FILE_CHANGED if a page could not be read since the mapping was made (the file was truncated: the page
  /// read as zeros meanwhile) or if the file's size or modification time differ from then. Call after using the data.
  /// A file that was deleted, or replaced by renaming another over it, is still whole here and no error.
  void check_unchanged() const;
  /// Tells the system that [offset, offset + bytes) has been used and its pages may be dropped.
  void release(size_t offset, size_t bytes) const noexcept;
  /// Reads [offset, offset + bytes) in and maps its pages, so that using them later waits for nothing: a wish, which the system
  /// need not follow.
  void populate(size_t offset, size_t bytes) const noexcept;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int file_ = -1;
  int64_t modified_ns_ = 0;
  size_t guard_ = 0;  // index of this mapping's entry in the SIGBUS guard's table

  /// False where the system does not follow.
  bool advise(size_t offset, size_t bytes, int advice) const noexcept;
};

}  // namespace minigpt4
