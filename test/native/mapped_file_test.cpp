// Files that cannot be mapped, and files that change under the mapping.
#include "core/mapped_file.h"

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/sigbus_guard.h"
#include "core/thread_pool.h"
#include "temporary_folder.h"

using namespace minigpt4;

namespace {

int64_t sum_of(const MappedFile& file) {
  int64_t sum = 0;
  for (size_t i = 0; i < file.size(); ++i) sum += int64_t(file.data()[i]);
  return sum;
}

}  // namespace

TEST("mapped file: contents, and what cannot be opened") {
  const check::TemporaryFolder folder;
  const std::string path = folder.file("a", std::string(10000, '\1'));
  const MappedFile file(path);
  CHECK_EQUAL(file.size(), 10000u);
  CHECK_EQUAL(file.path(), path);
  CHECK_EQUAL(sum_of(file), 10000);
  file.release(0, file.size());
  file.release(5000, 1);
  file.release(20000, 1);
  CHECK_EQUAL(sum_of(file), 10000);
  file.check_unchanged();

  CHECK_ERROR(code::file_not_found, "no such file", MappedFile(folder.path("missing")));
  CHECK_ERROR(code::file_not_found, "no such file", MappedFile(path + "/below"));
  CHECK_ERROR(code::file_not_found, "directory", MappedFile(folder.path("")));
  CHECK_ERROR(code::file_format, "empty", MappedFile(folder.file("empty", "")));
  CHECK_EQUAL(mkfifo(folder.path("pipe").c_str(), 0600), 0);
  CHECK_ERROR(code::file_not_found, "pipe", MappedFile(folder.path("pipe")));
}

TEST("mapped file: truncated while in use") {
  const check::TemporaryFolder folder;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const std::string path = folder.file("a", std::string(40 * page, '\1'));
  const std::string other_path = folder.file("b", std::string(40 * page, '\1'));
  const MappedFile file(path), other(other_path);
  std::filesystem::resize_file(path, 2 * page);
  CHECK_EQUAL(sum_of(file), int64_t(2 * page));  // the rest reads as zeros
  CHECK_EQUAL(int(file.data()[40 * page - 1]), 0);
  CHECK_ERROR(code::file_changed, "it had", file.check_unchanged());
  other.check_unchanged();
  CHECK_EQUAL(sum_of(other), int64_t(40 * page));

  // Growing back does not hide that zeros were read.
  std::filesystem::resize_file(path, 40 * page);
  CHECK_ERROR(code::file_changed, "could not be read", file.check_unchanged());
}

TEST("mapped file: truncated while threads of a pool read it") {
  const check::TemporaryFolder folder;
  const size_t page = size_t(sysconf(_SC_PAGESIZE)), pages = 200;
  const std::string path = folder.file("a", std::string(pages * page, '\1'));
  const MappedFile file(path);
  ThreadPool pool(3);
  std::atomic<int64_t> sum = 0, pieces = 0;
  std::atomic<bool> truncated = false;
  pool.parallel_for(int64_t(pages), 1, [&](int64_t begin, int64_t end, int) {
    // pieces begun before the truncation may be read meanwhile, no later one
    const int64_t before = pieces.fetch_add(1);
    if (before == int64_t(pages / 4)) {
      std::error_code failure;
      std::filesystem::resize_file(path, page, failure);  // if it did not, the check below tells
      truncated = true;
    }
    while (before > int64_t(pages / 4) && !truncated) std::this_thread::yield();
    for (int64_t i = begin; i < end; ++i) {
      for (size_t at = 0; at < page; ++at) sum += int64_t(file.data()[size_t(i) * page + at]);
    }
  });
  CHECK(sum >= int64_t(page) && sum <= int64_t((pages / 4 + 1) * page));
  std::filesystem::resize_file(path, pages * page);  // so that only what was read tells of it
  CHECK_ERROR(code::file_changed, "could not be read", file.check_unchanged());
}

TEST("mapped file: pages that are asked for before they are used") {
  const check::TemporaryFolder folder;
  const size_t page = size_t(sysconf(_SC_PAGESIZE)), size = 40 * page + 7;
  const std::string path = folder.file("a", std::string(size, '\1'));
  const MappedFile file(path);
  file.populate(page + 5, 3 * page);
  file.populate(0, size);
  file.populate(size - 1, SIZE_MAX);
  file.populate(size + 1, 1);
  CHECK_EQUAL(sum_of(file), int64_t(size));
  file.check_unchanged();
  // what is gone from the file is no signal here
  std::filesystem::resize_file(path, page);
  file.populate(0, size);
  CHECK_ERROR(code::file_changed, "it had", file.check_unchanged());
}

TEST("mapped file: written to, and replaced, while in use") {
  const check::TemporaryFolder folder;
  const std::string path = folder.file("a", std::string(100, '\1'));
  const MappedFile file(path);
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
  CHECK_ERROR(code::file_changed, "written to", file.check_unchanged());

  // A file renamed over it, or deleted, leaves the mapped one as it is.
  const MappedFile kept(folder.file("b", std::string(100, '\1')));
  std::filesystem::rename(folder.file("c", std::string(50, '\2')), folder.path("b"));
  std::filesystem::remove(folder.path("b"));
  CHECK_EQUAL(sum_of(kept), 100);
  kept.check_unchanged();
}

TEST("mapped file: more files than the guard can watch") {
  const check::TemporaryFolder folder;
  const std::string path = folder.file("a", "x");
  // Entries alone: so many files may be more than the system lets a process open.
  std::vector<size_t> entries;
  CHECK_ERROR(
      code::out_of_memory, "files are mapped already",
      while (entries.size() < 100000) { entries.push_back(watch_mapping(path.data(), 1, path)); });
  CHECK_ERROR(code::out_of_memory, path, MappedFile{path});
  for (const size_t entry : entries) unwatch_mapping(entry);
  CHECK_EQUAL(MappedFile(path).size(), 1u);
}

TEST("mapped file: a SIGBUS that is not a watched file's still ends the process") {
  const check::TemporaryFolder folder;
  const MappedFile watched(folder.file("a", "x"));  // the guard is installed
  const std::string path = folder.file("b", "x");
  for (const bool sent : {false, true}) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      const int silence = open("/dev/null", O_WRONLY);  // a sanitizer reports the signal
      dup2(silence, STDERR_FILENO);
      if (sent) {
        raise(SIGBUS);
      } else {
        const int file = open(path.c_str(), O_RDWR);
        void* const page = mmap(nullptr, 1, PROT_READ, MAP_SHARED, file, 0);
        if (ftruncate(file, 0) == 0) static_cast<void>(*static_cast<volatile char*>(page));
      }
      _exit(0);
    }
    int status = 0;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
}
