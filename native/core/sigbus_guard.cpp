// The table of watched mappings is written under a lock and read by the signal handler without one: an entry's begin is
// set last and cleared first.
#include "core/sigbus_guard.h"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/error.h"

namespace minigpt4 {

namespace {

struct Entry {
  std::atomic<uintptr_t> begin{0}, end{0};  // begin 0: free
  std::atomic<bool> damaged{false};
};
constexpr size_t kEntries = 4096;
static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

// Trivially destructible, so still whole when a late fault comes during exit.
Entry entries[kEntries];
std::mutex entries_mutex;
uintptr_t page_bytes = 4096;
struct sigaction previous;

/// Maps zeros from the page of `address` to the end of its watched mapping: a file that lost one page to truncation
/// lost all after it, and one mapping serves them. False if the address is not watched.
bool replace_by_zeros(uintptr_t address) noexcept {
  for (Entry& entry : entries) {
    const uintptr_t begin = entry.begin.load();
    if (begin == 0 || address < begin || address >= entry.end.load()) continue;
    entry.damaged.store(true);
    const uintptr_t page = address & ~(page_bytes - 1);
    void* const zeros = mmap(reinterpret_cast<void*>(page), entry.end.load() - page, PROT_READ,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return zeros != MAP_FAILED;
  }
  return false;
}

void on_sigbus(int signal_number, siginfo_t* about, void* context) {
  const int saved = errno;
  // si_code is positive for a fault; kill() and the like have no address
  if (about->si_code > 0 && replace_by_zeros(reinterpret_cast<uintptr_t>(about->si_addr))) {
    errno = saved;
    return;
  }
  errno = saved;
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(signal_number, about, context);
  } else if (previous.sa_handler == SIG_IGN && about->si_code <= 0) {
    return;
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    // The default is to end: a fault comes again on return, a sent signal is sent again.
    signal(SIGBUS, SIG_DFL);
    if (about->si_code <= 0) raise(SIGBUS);
  } else {
    previous.sa_handler(signal_number);
  }
}

void install() {
  page_bytes = uintptr_t(sysconf(_SC_PAGESIZE));
  // The handler outlives whoever loaded this library (Node unloads an addon with the worker thread that required it).
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&on_sigbus), &self) != 0 && self.dli_fname) {
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  }
  sigaction(SIGBUS, nullptr, &previous);  // known before the handler may need it
  struct sigaction action{};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

size_t watch_mapping(const void* data, size_t bytes, const std::string& path) {
  static std::once_flag installed;
  std::call_once(installed, install);
  const std::lock_guard lock(entries_mutex);
  for (size_t i = 0; i < kEntries; ++i) {
    Entry& entry = entries[i];
    if (entry.begin.load() != 0) continue;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
    entry.damaged.store(false);
    entry.end.store((begin + bytes + page_bytes - 1) & ~(page_bytes - 1));
    entry.begin.store(begin);
    return i;
  }
  fail(code::out_of_memory, "cannot map ", path, ": ", kEntries, " files are mapped already, the most there can be");
}

void unwatch_mapping(size_t entry) noexcept {
  const std::lock_guard lock(entries_mutex);
  entries[entry].begin.store(0);
}

bool mapping_is_damaged(size_t entry) noexcept { return entries[entry].damaged.load(); }

}  // namespace minigpt4
