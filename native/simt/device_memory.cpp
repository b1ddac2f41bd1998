#include "simt/device_memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "simt/report.h"

namespace minigpt4::simt {

namespace {

constexpr size_t slack = 4096;  // on both sides; large enough to keep neighbours in different pages
constexpr int poison = 0xff;

struct Registry {
  std::mutex lock;
  std::map<const std::byte*, std::unique_ptr<DeviceAllocation>> allocations;  // by begin
  std::map<int, size_t> used;
  uint64_t count = 0;
  std::atomic<uint64_t> changes{1};
};
Registry& registry() {
  static Registry* made = new Registry;  // never destroyed: freed from threads that end with the process
  return *made;
}

size_t mapped_bytes(size_t bytes) { return 2 * slack + (bytes + slack - 1) / slack * slack; }

DeviceAllocation* below(Registry& all, const std::byte* p) {
  auto next = all.allocations.upper_bound(p);
  return next == all.allocations.begin() ? nullptr : std::prev(next)->second.get();
}

void check_slack(const DeviceAllocation& allocation) {
  const std::byte* end = allocation.begin + allocation.bytes;
  const std::byte* last = allocation.begin - slack + mapped_bytes(allocation.bytes);
  std::string words;
  for (size_t i = 1; i <= slack && words.empty(); ++i) {
    if (allocation.begin[-ptrdiff_t(i)] != std::byte(poison)) words = std::to_string(i) + " bytes before its begin";
  }
  for (const std::byte* p = end; p < last && words.empty(); ++p) {
    if (*p != std::byte(poison)) words = std::to_string(p - end) + " bytes behind its end";
  }
  if (!words.empty()) {
    report(FindingKind::out_of_bounds, nullptr, 0,
           "a device allocation of " + std::to_string(allocation.bytes) + " bytes was written " + words +
               " at some time before it was freed");
  }
}

}  // namespace

size_t device_memory_taken(size_t bytes) {
  constexpr size_t unit = size_t(2) << 20;
  return bytes < unit / 2 ? bytes : (bytes + unit - 1) / unit * unit;
}

DeviceAllocation* allocate_device_memory(int device, size_t bytes) {
  Registry& all = registry();
  void* mapped =
      mmap(nullptr, mapped_bytes(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  std::memset(mapped, poison, mapped_bytes(bytes));
  auto made = std::make_unique<DeviceAllocation>();
  made->begin = static_cast<std::byte*>(mapped) + slack;
  made->bytes = bytes;
  made->device = device;
  DeviceAllocation* allocation = made.get();
  {
    const std::lock_guard held(all.lock);
    allocation->number = ++all.count;
    all.used[device] += device_memory_taken(bytes);
    all.allocations.emplace(allocation->begin, std::move(made));
  }
  ++all.changes;
  if (events.on_device_allocate) events.on_device_allocate(*allocation);
  return allocation;
}

bool free_device_memory(void* begin) {
  Registry& all = registry();
  std::unique_ptr<DeviceAllocation> freed;
  {
    const std::lock_guard held(all.lock);
    const auto found = all.allocations.find(static_cast<std::byte*>(begin));
    if (found == all.allocations.end()) return false;
    freed = std::move(found->second);
    all.allocations.erase(found);
    all.used[freed->device] -= device_memory_taken(freed->bytes);
  }
  ++all.changes;
  if (events.on_device_free) events.on_device_free(*freed);
  check_slack(*freed);
  munmap(freed->begin - slack, mapped_bytes(freed->bytes));
  return true;
}

size_t device_memory_used(int device) {
  Registry& all = registry();
  const std::lock_guard held(all.lock);
  return all.used[device];
}

bool touches_device_memory(const void* p, size_t bytes) {
  Registry& all = registry();
  const std::lock_guard held(all.lock);
  const std::byte* begin = static_cast<const std::byte*>(p);
  const DeviceAllocation* last = below(all, begin + (bytes ? bytes - 1 : 0));
  return last && last->begin + last->bytes > begin;
}

DeviceAllocation* find_allocation(const void* address) {
  // Neighbouring accesses go to the same allocation: the last one is kept until any is made or freed.
  struct Last {
    uint64_t changes = 0;
    DeviceAllocation* allocation = nullptr;
  };
  static thread_local Last last;
  Registry& all = registry();
  const std::byte* p = static_cast<const std::byte*>(address);
  const uint64_t changes = all.changes.load(std::memory_order_acquire);
  if (last.changes == changes && last.allocation && p >= last.allocation->begin &&
      p < last.allocation->begin + last.allocation->bytes) {
    return last.allocation;
  }
  DeviceAllocation* found = allocation_below(address);
  if (!found || p >= found->begin + found->bytes) return nullptr;
  last = {changes, found};
  return found;
}

DeviceAllocation* allocation_below(const void* address) {
  Registry& all = registry();
  const std::lock_guard held(all.lock);
  return below(all, static_cast<const std::byte*>(address));
}

}  // namespace minigpt4::simt
