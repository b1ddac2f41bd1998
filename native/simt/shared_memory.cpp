// A block's shared memory: arrays carved out of one arena when first asked for, poisoned, with red zones around them.
#include <sys/mman.h>

#include <cstring>
#include <new>
#include <string>

#include "simt/execution.h"
#include "simt/gpu_simt.h"

namespace minigpt4::simt {

namespace {

constexpr size_t arena_bytes = 512 * 1024;  // the largest device's 227 KB and room for red zones
constexpr size_t bank_period = 128;
constexpr size_t static_limit = 48 * 1024;
constexpr int poison = 0xff;

std::byte* arena() {
  static std::byte* made = [] {
    void* mapped = mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(mapped);
  }();
  return made;
}

[[noreturn]] void refuse(const char* file, int line, const std::string& words) {
  report(FindingKind::shared_memory, file, line, words);
  abandon_launch();
}

SharedSlot& carve(BlockInfo& block, size_t bytes, size_t offset, const char* file, int line) {
  std::byte* free =
      block.slots.empty() ? block.arena_begin : block.slots.back().begin + block.slots.back().bytes + red_zone_bytes;
  const size_t used = size_t(free - block.arena_begin) + red_zone_bytes;
  const size_t begin = (used + bank_period - 1) / bank_period * bank_period + offset % bank_period;
  if (begin + bytes + red_zone_bytes > arena_bytes) {
    const OwnCode own;
    refuse(file, line, "the block's arrays in shared memory are too many or too large for any device");
  }
  std::memset(free, poison, size_t(block.arena_begin + begin + bytes + red_zone_bytes - free));
  block.slots.push_back({.begin = block.arena_begin + begin, .bytes = bytes, .offset = offset, .site = {file, line}});
  return block.slots.back();
}

void check_total(const BlockInfo& block, const char* file, int line) {
  size_t fixed = 0;
  for (const SharedSlot& slot : block.slots) {
    if (slot.key) fixed += (slot.bytes + 15) / 16 * 16;
  }
  if (fixed > static_limit) {
    const OwnCode own;
    refuse(file, line,
           "static shared memory of " + std::to_string(fixed) + " bytes, of which no kernel has more than " +
               std::to_string(static_limit));
  }
  const size_t total = fixed + block.launch->shared_bytes, limit = execution().shared_limit();
  if (total > limit) {
    const OwnCode own;
    refuse(file, line,
           "shared memory of " + std::to_string(total) + " bytes (" + std::to_string(fixed) +
               " static), of which the device has " + std::to_string(limit) + " a block" +
               (limit == static_limit ? " for kernels that did not ask for more dynamic memory" : ""));
  }
}

}  // namespace

void begin_shared_memory(BlockInfo& block) {
  block.arena_begin = arena();
  block.arena_end = block.arena_begin + arena_bytes;
  block.slots.clear();
}

void check_shared_memory(const BlockInfo& block) {
  for (const SharedSlot& slot : block.slots) {
    const std::string what =
        slot.key ? std::string(slot.name) : "the dynamic part at byte " + std::to_string(slot.offset);
    for (size_t i = 1; i <= red_zone_bytes; ++i) {
      const bool below = slot.begin[-ptrdiff_t(i)] != std::byte(poison);
      const bool above = slot.begin[slot.bytes + i - 1] != std::byte(poison);
      if (!below && !above) continue;
      report(FindingKind::shared_memory, slot.site.file, slot.site.line,
             what + " (" + std::to_string(slot.bytes) + " bytes of shared memory) was written " + std::to_string(i) +
                 " bytes " + (below ? "before its begin" : "behind its end"));
      break;
    }
  }
}

void* shared_array(const void* key, size_t bytes, const char* name, const char* file, int line) {
  BlockInfo& block = execution().block();
  for (const SharedSlot& slot : block.slots) {
    if (slot.key == key) return slot.begin;
  }
  SharedSlot& slot = carve(block, bytes, 0, file, line);
  slot.key = key;
  slot.name = name;
  check_total(block, file, line);
  if (events.on_shared_slot) events.on_shared_slot(block, slot);
  return slot.begin;
}

void* dynamic_part(size_t offset, size_t bytes, const char* file, int line) {
  BlockInfo& block = execution().block();
  for (const SharedSlot& slot : block.slots) {
    if (slot.key) continue;
    if (slot.offset == offset && slot.bytes == bytes) return slot.begin;
    if (slot.offset < offset + bytes && offset < slot.offset + slot.bytes) {
      const OwnCode own;
      refuse(file, line,
             "the thread takes bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                 " of dynamic shared memory, another took " + std::to_string(slot.offset) + " to " +
                 std::to_string(slot.offset + slot.bytes) + " at " + slot.site.file + ":" +
                 std::to_string(slot.site.line) + ": all must take the same parts in the same order");
    }
  }
  if (offset + bytes > block.launch->shared_bytes) {
    const OwnCode own;
    refuse(file, line,
           "dynamic shared memory up to byte " + std::to_string(offset + bytes) +
               " is taken, but the launch asked for " + std::to_string(block.launch->shared_bytes));
  }
  SharedSlot& slot = carve(block, bytes, offset, file, line);
  slot.name = "dynamic";
  if (events.on_shared_slot) events.on_shared_slot(block, slot);
  return slot.begin;
}

}  // namespace minigpt4::simt
