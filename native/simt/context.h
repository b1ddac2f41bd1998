// What the emulator knows about the CUDA thread that runs at this moment, its block and its launch; and the points at
// which a memory checker may listen. Kernel files see it through gpu_simt.h, the checker through this header alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt/vector_types.h"

namespace minigpt4::simt {

inline constexpr unsigned warp_lanes = 32;
inline constexpr unsigned block_threads_limit = 1024;
inline constexpr unsigned block_warps_limit = block_threads_limit / warp_lanes;

/// A place in a kernel's source: of the call of a collective, a barrier, an array in shared memory.
struct Site {
  const char* file = nullptr;
  int line = 0;
};

/// One array in a block's shared memory, alive from its first use in the block to the block's end. There are red zones
/// of red_zone_bytes before and behind it; both belong to no slot.
struct SharedSlot {
  std::byte* begin = nullptr;
  size_t bytes = 0;           // of the array as the kernel declared it
  const void* key = nullptr;  // the declaration; null for a part of dynamic shared memory
  size_t offset = 0;  // of a part of dynamic shared memory: where it begins on the device; begin % 128 is the same
  const char* name = nullptr;
  Site site;
};
inline constexpr size_t red_zone_bytes = 64;

/// A cp.async that was issued and whose bytes have not arrived: its 16 bytes of shared memory hold 0xFF until then.
struct PendingCopy {
  std::byte* to;
  const std::byte* from;  // null: 16 zero bytes
  uint32_t group;         // the thread's running number of cp_commit; the copy is of the group that this number closes
  Site site;
};

struct LaunchInfo {
  uint64_t number = 0;      // from 1, counts the launches of the process
  const char* kernel = "";  // demangled where the program has symbols, else where it was launched
  dim3 grid, block;
  size_t shared_bytes = 0;  // dynamic
  Site site;                // of the launch
  const void* function = nullptr;
  bool overlapping = false;  // may begin before the launch before it has ended
};

struct BlockInfo {
  const LaunchInfo* launch = nullptr;
  uint3 index = {0, 0, 0};
  uint64_t number = 0;  // x + grid.x · (y + grid.y · z)
  unsigned threads = 0, warps = 0;
  /// Counts the __syncthreads that the block has passed: two accesses of different epochs are ordered.
  uint32_t epoch = 0;
  /// Counts the __syncwarp of each warp. Shuffles, votes and mma order no memory, as on the device.
  /// A __syncwarp of part of a warp counts too: which lanes it held together stands in on_syncwarp's mask.
  uint32_t warp_epoch[block_warps_limit] = {};
  std::vector<SharedSlot> slots;
  std::byte* arena_begin = nullptr;  // all shared memory of a block, red zones and free space included
  std::byte* arena_end = nullptr;
};

/// The running CUDA thread. The checker may read all of it and write `checker` alone.
struct Context {
  uint3 thread_index = {0, 0, 0};
  unsigned thread = 0;  // in the block: x + block.x · (y + block.y · z)
  unsigned warp = 0, lane = 0;
  BlockInfo* block = nullptr;
  std::byte* stack_begin = nullptr;  // its own stack, kernel arguments included
  std::byte* stack_end = nullptr;
  std::vector<PendingCopy> copies;  // issued and not arrived, oldest first
  uint32_t copy_group = 0;          // cp_commit calls so far
  Site waits;                       // of the collective or barrier it stands at
  const char* waits_for = nullptr;  // "__syncthreads" and so on; null while it runs or can run
  bool waited = false;              // for the launch before this one
  uint64_t checker = 0;             // 0 at the block's begin
};

/// Null outside of kernels. The emulator's own code runs inside kernels too, but is not instrumented.
#if defined(__GNUC__)
__attribute__((tls_model("initial-exec")))
#endif
extern constinit thread_local Context* current;

/// All stacks of all fibers: an address in here and outside of the running thread's own is another thread's local.
struct AddressRange {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  bool holds(const void* p) const {
    return static_cast<const std::byte*>(p) >= begin && static_cast<const std::byte*>(p) < end;
  }
};
AddressRange all_stacks();

// ---- device memory

struct DeviceAllocation {
  std::byte* begin = nullptr;
  size_t bytes = 0;  // as asked for; more bytes on both sides belong to nobody
  int device = 0;
  uint64_t number = 0;      // counts the allocations of the process: tells a new allocation at an old address
  void* checker = nullptr;  // for the checker alone
};
/// The allocation that holds the address, or null. Valid until the allocation is freed.
DeviceAllocation* find_allocation(const void* address);
/// The nearest allocation whose begin is at or below the address, or null: to say how far off an address is.
DeviceAllocation* allocation_below(const void* address);

// ---- listening

/// Called where not null. Those with a Context run on that thread's fiber: don't keep the reference.
struct Events {
  void (*on_launch_begin)(const LaunchInfo&) = nullptr;
  void (*on_launch_end)(const LaunchInfo&) = nullptr;
  void (*on_block_begin)(const BlockInfo&) = nullptr;  // no slots yet
  void (*on_block_end)(const BlockInfo&) = nullptr;    // also of a block that was given up
  void (*on_thread_end)(Context&) = nullptr;
  /// All threads of the block have arrived; the epoch was just counted up.
  void (*on_barrier)(const BlockInfo&) = nullptr;
  /// The lanes of `mask` have arrived; the warp's epoch was just counted up.
  void (*on_syncwarp)(const BlockInfo&, unsigned warp, uint32_t mask) = nullptr;
  /// A slot came alive: filled with 0xFF, written by nobody.
  void (*on_shared_slot)(const BlockInfo&, const SharedSlot&) = nullptr;
  /// Issue: `to` was just filled with 0xFF and is in flight. Complete: the 16 bytes were just written, by this thread.
  void (*on_cp_async_issue)(Context&, const PendingCopy&) = nullptr;
  void (*on_cp_async_complete)(Context&, const PendingCopy&) = nullptr;
  /// 16 bytes of shared memory read by ldmatrix on behalf of the thread that gave the address; its lane is reader.lane.
  void (*on_ldmatrix_row)(Context& reader, const void* row, Site) = nullptr;
  /// Before the read and the write of an atomic operation.
  void (*on_atomic)(Context&, const void* address, unsigned bytes, Site) = nullptr;
  void (*on_device_allocate)(DeviceAllocation&) = nullptr;
  void (*on_device_free)(DeviceAllocation&) = nullptr;
  /// cudaMemcpy*, cudaMemset* and what a graph replays of them: this range of device memory was written from the host's
  /// side, or is about to be read by it.
  void (*on_device_written)(DeviceAllocation&, const void* begin, size_t bytes) = nullptr;
  void (*on_device_read)(DeviceAllocation&, const void* begin, size_t bytes) = nullptr;
};
extern Events events;

/// Lets another thread of the block run before this one goes on, one time in Options::preempt_every (never at 0). For
/// the checker, before an access of the kernel's own; not from inside an event.
void preemption_point();

/// Gives up the running block and its launch, without running the rest of any thread: after a finding that leaves
/// nothing sensible to go on with (an access outside of all memory). Call inside a kernel alone.
[[noreturn]] void abandon_launch();

}  // namespace minigpt4::simt
