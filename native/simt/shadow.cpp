#include "simt/shadow.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "simt/hooks_findings.h"
#include "simt/shadow_range.h"

namespace minigpt4::simt::shadow {
namespace {

struct GlobalShadow {
  explicit GlobalShadow(size_t bytes) : marks(bytes), written(bytes) {}
  ShadowRange marks;
  std::vector<uint8_t> written;  // per byte: by the host or a kernel
};

struct SharedShadow {
  const std::byte* begin = nullptr;
  std::unique_ptr<ShadowRange> marks;
  std::vector<uint32_t> in_flight;  // per byte: the site of the cp.async that will write it, or 0
  size_t flying = 0;                // bytes in flight
};

// launches exclude each other, and one runs on one thread
uint32_t epoch = 1, block_epoch = 1, launch_epoch = 1;
std::vector<std::pair<uint32_t, uint64_t>> blocks;  // of this launch: the epoch at which each began
WarpOrder warps[block_warps_limit];
SharedShadow shared;

GlobalShadow& shadow_of(const DeviceAllocation& allocation) { return *static_cast<GlobalShadow*>(allocation.checker); }

Actor actor_of(const Context& thread) {
  return {epoch, block_epoch, launch_epoch, uint16_t(thread.thread), &warps[thread.warp]};
}

uint64_t block_at(uint32_t then) {
  const auto after = std::upper_bound(blocks.begin(), blocks.end(), std::pair(then, ~uint64_t(0)));
  return after == blocks.begin() ? 0 : (after - 1)->second;
}

const char* verb(uint8_t kind) {
  return kind == kind_write ? "write" : kind == kind_atomic ? "atomic operation" : "read";
}
std::string sized(size_t bytes, uint8_t kind) { return std::to_string(bytes) + "-byte " + verb(kind) + " "; }

void note_race(const Context& thread, const char* where, uint8_t kind, uint32_t site, const Mark& other) {
  if (noted_before(FindingKind::race, site, other.site)) return;
  std::string words = std::string("race in ") + where + " memory: this " + verb(kind) + " is not ordered after the " +
                      verb(other.kind) + " by thread " + std::to_string(other.thread);
  std::string rest;
  if (other.epoch < block_epoch) {
    words += " of block " + std::to_string(block_at(other.epoch));
    rest = " (blocks of one launch have no order)";
  } else if (other.thread / warp_lanes == thread.warp) {
    rest = " (no __syncwarp and no __syncthreads lies between)";
  } else {
    rest = " (no __syncthreads lies between)";
  }
  note_finding(FindingKind::race, thread, site, words + " at ", other.site, rest);
}

void check_shared(const Context& thread, const void* address, size_t bytes, uint8_t kind, uint32_t site) {
  const std::string misses = misses_shared(*thread.block, address, bytes);
  if (!misses.empty()) {
    note_finding(FindingKind::out_of_bounds, thread, site, sized(bytes, kind) + misses);
    return;  // the arena is there: the kernel may go on
  }
  const size_t offset = size_t(static_cast<const std::byte*>(address) - shared.begin);
  for (size_t i = offset; shared.flying && i < offset + bytes; ++i) {
    if (!shared.in_flight[i]) continue;
    note_finding(FindingKind::in_flight, thread, site,
                 std::string(verb(kind)) + " while a cp.async into it is in flight, started at ", shared.in_flight[i]);
    break;
  }
  const Mark other = shared.marks->touch(actor_of(thread), offset, bytes, kind, site, block_epoch);
  if (other.kind) note_race(thread, "shared", kind, site, other);
}

void check_global(const Context& thread, const void* address, size_t bytes, uint8_t kind, uint32_t site) {
  DeviceAllocation& allocation = *find_allocation(address);
  const size_t offset = size_t(static_cast<const std::byte*>(address) - allocation.begin);
  if (offset + bytes > allocation.bytes) {
    note_finding(FindingKind::out_of_bounds, thread, site, sized(bytes, kind) + misses_global(address, bytes));
    abandon_launch();
  }
  GlobalShadow& shadow = shadow_of(allocation);
  uint8_t* written = &shadow.written[offset];
  if (kind != kind_write && std::memchr(written, 0, bytes) && !noted_before(FindingKind::uninitialised, site)) {
    note_finding(FindingKind::uninitialised, thread, site,
                 sized(bytes, kind) + "of device memory that nobody has written, at byte " + std::to_string(offset) +
                     " of an allocation of " + std::to_string(allocation.bytes) + " bytes");
  }
  if (kind != kind_read) std::memset(written, 1, bytes);
  const Mark other = shadow.marks.touch(actor_of(thread), offset, bytes, kind, site, launch_epoch);
  if (other.kind) note_race(thread, "global", kind, site, other);
}

}  // namespace

void access(const Context& thread, Space space, const void* address, size_t bytes, uint8_t kind, uint32_t site) {
  switch (space) {
    case Space::stack:
      return;
    case Space::shared:
      return check_shared(thread, address, bytes, kind, site);
    case Space::global:
      return check_global(thread, address, bytes, kind, site);
    case Space::image:
      if (kind == kind_read) return;
      note_finding(FindingKind::out_of_bounds, thread, site,
                   sized(bytes, kind) + "goes to the host program's own data");
      return;
    case Space::other_stack:
      note_finding(FindingKind::out_of_bounds, thread, site,
                   sized(bytes, kind) + "goes to the local variables of another thread");
      return;
    case Space::nowhere:
      note_finding(FindingKind::out_of_bounds, thread, site, sized(bytes, kind) + misses_global(address, bytes));
      abandon_launch();
  }
}

void launch_begins() {
  launch_epoch = block_epoch = ++epoch;
  blocks.clear();
}

void block_begins(const BlockInfo& block) {
  block_epoch = ++epoch;
  blocks.emplace_back(block_epoch, block.number);
  for (unsigned warp = 0; warp < block.warps; ++warp) warps[warp].reset();
  const size_t bytes = size_t(block.arena_end - block.arena_begin);
  if (shared.begin != block.arena_begin || shared.in_flight.size() != bytes) {
    shared = {block.arena_begin, std::make_unique<ShadowRange>(bytes), std::vector<uint32_t>(bytes), 0};
  }
  if (shared.flying) std::fill(shared.in_flight.begin(), shared.in_flight.end(), 0);
  shared.flying = 0;
}

void barrier() { ++epoch; }

void warp_synced(const BlockInfo& block, unsigned warp, uint32_t mask) {
  const unsigned lanes = std::min(warp_lanes, block.threads - warp * warp_lanes);
  warps[warp].synced(mask, uint32_t((uint64_t(1) << lanes) - 1));
}

void copy_issued(const Context& thread, const PendingCopy& copy, uint32_t site) {
  access(thread, space_of(thread, copy.to), copy.to, 16, kind_write, site);
  if (space_of(thread, copy.to) != Space::shared) return;
  uint32_t* in_flight = &shared.in_flight[size_t(copy.to - shared.begin)];
  shared.flying += size_t(std::count(in_flight, in_flight + 16, 0u));
  std::fill(in_flight, in_flight + 16, site);
}

void copy_completed(const Context& thread, const PendingCopy& copy, uint32_t site) {
  if (space_of(thread, copy.to) != Space::shared) return;
  const size_t offset = size_t(copy.to - shared.begin);
  uint32_t* in_flight = &shared.in_flight[offset];
  shared.flying -= 16 - size_t(std::count(in_flight, in_flight + 16, 0u));
  std::fill(in_flight, in_flight + 16, 0u);
  // who touched it in between was told when doing so
  shared.marks->touch(actor_of(thread), offset, 16, kind_write, site, block_epoch);
}

void allocated(DeviceAllocation& allocation) { allocation.checker = new GlobalShadow(allocation.bytes); }

void freed(DeviceAllocation& allocation) {
  delete static_cast<GlobalShadow*>(allocation.checker);
  allocation.checker = nullptr;
}

void written_by_host(DeviceAllocation& allocation, const void* begin, size_t bytes) {
  if (bytes == 0) return;
  std::memset(&shadow_of(allocation).written[size_t(static_cast<const std::byte*>(begin) - allocation.begin)], 1,
              bytes);
}

}  // namespace minigpt4::simt::shadow
