// The memory checker: whether the running thread may touch an address, whether it was written, and whether the access is
// ordered after everyone else's. hooks.cpp feeds it; what it finds goes to hooks_findings.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/context.h"
#include "simt/shadow_cell.h"
#include "simt/shadow_space.h"

namespace minigpt4::simt::shadow {

/// Checks and notes an access of `bytes` bytes by the running thread, or by the thread on whose behalf it happens. Ends
/// the launch where going on would touch memory that is not there.
void access(const Context& thread, Space space, const void* address, size_t bytes, uint8_t kind, uint32_t site);

void launch_begins();
void block_begins(const BlockInfo& block);
void barrier();
void warp_synced(const BlockInfo& block, unsigned warp, uint32_t mask);

/// cp.async writes its 16 bytes at the issue (whoever read them must be done) and at the end (by the thread that waited);
/// between the two nobody may touch them.
void copy_issued(const Context& thread, const PendingCopy& copy, uint32_t site);
void copy_completed(const Context& thread, const PendingCopy& copy, uint32_t site);

void allocated(DeviceAllocation& allocation);
void freed(DeviceAllocation& allocation);
void written_by_host(DeviceAllocation& allocation, const void* begin, size_t bytes);

}  // namespace minigpt4::simt::shadow
