#include "simt/hooks.h"

#include <algorithm>
#include <mutex>
#include <string>

#include "simt/context.h"
#include "simt/hooks_findings.h"
#include "simt/hooks_sites.h"
#include "simt/report.h"
#include "simt/shadow.h"
#include "simt/traffic.h"

namespace minigpt4::simt {
namespace {

// Held by a launch from its begin to its end, and by what the host does to device memory: the checker's memory is one.
std::mutex checking;

// The checker's own code may run a template's instance that a hooked file brought along: its accesses are not a kernel's.
thread_local bool inside = false;

class Inside {
 public:
  Inside() { inside = true; }
  ~Inside() { inside = false; }
};

void note_access(const Context& thread, shadow::Space space, const void* address, size_t bytes, uint8_t kind,
                 uint32_t site) {
  if (space == shadow::Space::global && thread.block->launch->overlapping && !thread.waited) {
    note_finding(FindingKind::overlap, thread, site,
                 "launched to overlap, and the thread touched global memory before it waited for the launch before");
  }
  if (traffic::counting()) traffic::access(thread, space, address, uint32_t(bytes), kind, site);
  shadow::access(thread, space, address, bytes, kind, site);
}

void on_launch_begin(const LaunchInfo& launch) {
  checking.lock();
  const Inside guard;
  shadow::launch_begins();
  traffic::launch_begins(launch);
}

void on_launch_end(const LaunchInfo&) {
  {
    const Inside guard;
    traffic::launch_ends();
    tell_findings();
  }
  checking.unlock();
}

void on_block_begin(const BlockInfo& block) {
  const Inside guard;  // also ends what an abandoned block left
  shadow::block_begins(block);
}

void on_block_end(const BlockInfo&) {
  const Inside guard;
  traffic::block_ends();
}

void on_barrier(const BlockInfo&) { shadow::barrier(); }

void on_syncwarp(const BlockInfo& block, unsigned warp, uint32_t mask) { shadow::warp_synced(block, warp, mask); }

void on_cp_async_issue(Context& thread, const PendingCopy& copy) {
  const Inside guard;
  const uint32_t site = site_number(copy.site);
  if (copy.from) note_access(thread, shadow::space_of(thread, copy.from), copy.from, 16, kind_read, site);
  if (traffic::counting()) {
    traffic::access(thread, shadow::space_of(thread, copy.to), copy.to, 16, kind_write, site);
  }
  shadow::copy_issued(thread, copy, site);
}

void on_cp_async_complete(Context& thread, const PendingCopy& copy) {
  const Inside guard;
  shadow::copy_completed(thread, copy, site_number(copy.site));
}

void on_ldmatrix_row(Context& reader, const void* row, Site site) {
  const Inside guard;
  note_access(reader, shadow::space_of(reader, row), row, 16, kind_read, site_number(site));
}

void on_atomic(Context& thread, const void* address, unsigned bytes, Site site) {
  const Inside guard;
  note_access(thread, shadow::space_of(thread, address), address, bytes, kind_atomic, site_number(site));
}

void on_device_allocate(DeviceAllocation& allocation) {
  const std::lock_guard lock(checking);
  shadow::allocated(allocation);
}

void on_device_free(DeviceAllocation& allocation) {
  const std::lock_guard lock(checking);
  shadow::freed(allocation);
}

void on_device_written(DeviceAllocation& allocation, const void* begin, size_t bytes) {
  const std::lock_guard lock(checking);
  shadow::written_by_host(allocation, begin, bytes);
}

}  // namespace

void install_hooks() {
  events.on_launch_begin = on_launch_begin;
  events.on_launch_end = on_launch_end;
  events.on_block_begin = on_block_begin;
  events.on_block_end = on_block_end;
  events.on_barrier = on_barrier;
  events.on_syncwarp = on_syncwarp;
  events.on_cp_async_issue = on_cp_async_issue;
  events.on_cp_async_complete = on_cp_async_complete;
  events.on_ldmatrix_row = on_ldmatrix_row;
  events.on_atomic = on_atomic;
  events.on_device_allocate = on_device_allocate;
  events.on_device_free = on_device_free;
  events.on_device_written = on_device_written;
}

void hooked_access(const void* address, size_t bytes, uint8_t kind, bool aligned, const void* return_address) {
  if (!current || inside) return;
  shadow::Space space = shadow::space_of(*current, address);
  if (space == shadow::Space::stack) return;
  if (space == shadow::Space::shared) preemption_point();  // before, so that check and access stay together
  const Inside guard;
  const Context& thread = *current;
  const uint32_t site = site_number(return_address);
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    note_finding(FindingKind::misaligned, thread, site,
                 "an access of " + std::to_string(bytes) + " bytes to an address that is " +
                     std::to_string(reinterpret_cast<uintptr_t>(address) % bytes) + " beyond a multiple of that");
    abandon_launch();
  }
  for (size_t done = 0; done < bytes; done += 16) {  // an instruction of the device moves 16 bytes at most
    note_access(thread, space, static_cast<const std::byte*>(address) + done, std::min<size_t>(16, bytes - done), kind,
                site);
  }
}

}  // namespace minigpt4::simt
