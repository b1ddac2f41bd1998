// open, fstat, mmap, and the watch over the mapping.
#include "core/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/sigbus_guard.h"

namespace minigpt4 {

namespace {

int64_t modified_ns(const struct stat& about) {
#if defined(__APPLE__)
  const timespec& time = about.st_mtimespec;
#else
  const timespec& time = about.st_mtim;
#endif
  return int64_t(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // Not to block where a pipe is given: it is refused below.
  Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.number < 0) {
    const int reason = errno;
    if (reason == ENOENT || reason == ENOTDIR) fail(code::file_not_found, "no such file: ", path);
    fail(code::file_read, "cannot open ", path, ": ", std::strerror(reason));
  }
  struct stat about;
  if (fstat(file.number, &about) != 0) fail(code::file_read, "cannot read ", path, ": ", std::strerror(errno));
  if (S_ISDIR(about.st_mode)) fail(code::file_not_found, "expected a file, found a directory: ", path);
  if (!S_ISREG(about.st_mode)) fail(code::file_not_found, "expected a regular file, found a pipe or a device: ", path);
  if (about.st_size <= 0) fail(code::file_format, path, " is empty");
  if (uint64_t(about.st_size) > SIZE_MAX) fail(code::file_read, path, " is larger than this machine's addresses");
  size_ = size_t(about.st_size);
  modified_ns_ = modified_ns(about);
  void* const mapping = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (mapping == MAP_FAILED) {
    const int reason = errno;
    fail(reason == ENOMEM ? code::out_of_memory : code::file_read, "cannot map ", path, " (", size_,
         " bytes): ", std::strerror(reason));
  }
  try {
    guard_ = watch_mapping(mapping, size_, path_);
  } catch (...) {
    munmap(mapping, size_);
    throw;
  }
  data_ = static_cast<const std::byte*>(mapping);
  file_ = std::exchange(file.number, -1);
}

MappedFile::~MappedFile() {
  if (!data_) return;
  unwatch_mapping(guard_);
  munmap(const_cast<std::byte*>(data_), size_);
  close(file_);
}

void MappedFile::check_unchanged() const {
  struct stat about;
  if (fstat(file_, &about) != 0) fail(code::file_read, "cannot look at ", path_, ": ", std::strerror(errno));
  if (uint64_t(about.st_size) != size_) {
    fail(code::file_changed, path_, " was changed while it was in use: it had ", size_, " bytes and has ",
         about.st_size);
  }
  if (mapping_is_damaged(guard_)) {
    fail(code::file_changed, path_, " was changed while it was in use: a part of it could not be read");
  }
  if (modified_ns(about) != modified_ns_) fail(code::file_changed, path_, " was written to while it was in use");
}

void MappedFile::release(size_t offset, size_t bytes) const noexcept {
  // A page shared with the neighbour is read again when the neighbour is used.
  advise(offset, bytes, MADV_DONTNEED);
}

void MappedFile::populate(size_t offset, size_t bytes) const noexcept {
#ifdef MADV_POPULATE_READ
  // of a file that lost these pages meanwhile it says so instead of a signal; the loads that follow get that
  if (advise(offset, bytes, MADV_POPULATE_READ)) return;
#endif
  advise(offset, bytes, MADV_WILLNEED);
}

bool MappedFile::advise(size_t offset, size_t bytes, int advice) const noexcept {
  if (offset >= size_ || bytes == 0) return true;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t begin = offset & ~(page - 1);
  const size_t end = bytes < size_ - offset ? offset + bytes : size_;
  return madvise(const_cast<std::byte*>(data_) + begin, end - begin, advice) == 0;
}

}  // namespace minigpt4
