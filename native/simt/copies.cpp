// cp.async: the bytes arrive when a cp_wait says so and not before, so that a wait that is too weak shows.
#include <cstring>
#include <string>

#include "simt/execution.h"
#include "simt/gpu_simt.h"

namespace minigpt4::simt {

namespace {

[[noreturn]] void refuse(FindingKind kind, const char* file, int line, const std::string& words) {
  report(kind, file, line, "cp_async16 " + words);
  abandon_launch();
}

bool in_slot(const BlockInfo& block, const std::byte* p) {
  for (const SharedSlot& slot : block.slots) {
    if (p >= slot.begin && p + 16 <= slot.begin + slot.bytes) return true;
  }
  return false;
}

}  // namespace

void copy_issue(void* shared, const void* global, bool valid, const char* file, int line) {
  Context& me = *current;
  std::byte* to = static_cast<std::byte*>(shared);
  const std::byte* from = static_cast<const std::byte*>(global);
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) {
    const OwnCode own;
    refuse(FindingKind::misaligned, file, line, "to an address of shared memory that is not a multiple of 16");
  }
  if (!in_slot(*me.block, to)) {
    const OwnCode own;
    refuse(FindingKind::out_of_bounds, file, line, "to 16 bytes that are not inside of one array of shared memory");
  }
  if (valid) {
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0) {
      const OwnCode own;
      refuse(FindingKind::misaligned, file, line, "from an address that is not a multiple of 16");
    }
    const DeviceAllocation* allocation = find_allocation(from);
    if (!allocation || from + 16 > allocation->begin + allocation->bytes) {
      const DeviceAllocation* below = allocation_below(from);
      const OwnCode own;
      refuse(FindingKind::out_of_bounds, file, line,
             "from 16 bytes that are not inside of one device allocation" +
                 (below ? ": the address lies " + std::to_string(from - below->begin) +
                              " bytes behind the begin of the nearest, which has " + std::to_string(below->bytes)
                        : std::string()));
    }
  }
  std::memset(to, 0xff, 16);
  me.copies.push_back({to, valid ? from : nullptr, me.copy_group + 1, {file, line}});
  if (events.on_cp_async_issue) events.on_cp_async_issue(me, me.copies.back());
}

void copy_commit() { ++current->copy_group; }

void copy_wait(unsigned unfinished) {
  Context& me = *current;
  if (me.copies.empty() || me.copy_group < unfinished) return;
  const uint32_t last = me.copy_group - unfinished;
  size_t done = 0;
  for (; done < me.copies.size() && me.copies[done].group <= last; ++done) {
    const PendingCopy& copy = me.copies[done];
    if (copy.from) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
    if (events.on_cp_async_complete) events.on_cp_async_complete(me, copy);
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + ptrdiff_t(done));
}

}  // namespace minigpt4::simt
