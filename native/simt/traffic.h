// The memory report: for each kernel and source line, how many 32-byte sectors a warp's request moves and how many of their
// bytes it asked for, and how many shared-memory wavefronts it costs over the ideal. It depends on addresses alone, so it
// is the same on every machine, at every order of the threads, and a test can state bounds for it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "simt/context.h"
#include "simt/shadow_cell.h"
#include "simt/shadow_space.h"

namespace minigpt4::simt {

/// What one instruction of a warp, or many, moved. Of global memory sectors and bytes count, of shared memory wavefronts.
struct TrafficCount {
  uint64_t requests = 0;      // of warps
  uint64_t sectors = 0;       // 32-byte pieces of global memory, summed over the requests
  uint64_t useful_bytes = 0;  // distinct bytes each request asked for, summed
  uint64_t wavefronts = 0;    // of shared memory
  uint64_t ideal = 0;         // wavefronts if no bank were asked twice

  uint64_t fetched_bytes() const { return sectors * 32; }
  /// Part of the moved bytes that was asked for; 1 where nothing was moved.
  double useful() const { return sectors ? double(useful_bytes) / double(fetched_bytes()) : 1.0; }
  double sectors_per_request() const { return requests ? double(sectors) / double(requests) : 0.0; }
  double wavefronts_over_ideal() const { return ideal ? double(wavefronts) / double(ideal) : 1.0; }
  void add(const TrafficCount& other);
};

struct TrafficLine {
  std::string file;
  int line = 0;
  bool shared = false;       // else global memory
  uint8_t kind = kind_read;  // kind_read, kind_write or kind_atomic
  TrafficCount count;
};

struct KernelTraffic {
  std::string kernel;
  uint64_t launches = 0;
  TrafficCount global_reads, global_writes, shared_reads, shared_writes;  // atomics count as writes
  /// Bytes of the distinct sectors that each launch read or wrote, summed over the launches: what must come from or go
  /// to the device's memory however good its caches are.
  uint64_t bytes_read = 0, bytes_written = 0;
  std::vector<TrafficLine> lines;  // by file, line, memory and kind

  /// All accesses of a kind at the lines of a file whose path ends so, from line `first` to line `last`.
  TrafficCount at(const std::string& file_end, int first, int last, bool shared, uint8_t kind) const;
};

/// From here on all launches are counted, and what was counted before is forgotten.
void begin_traffic();
/// What was counted since then, by kernel in the order of first launches; counting ends.
std::vector<KernelTraffic> take_traffic();
/// The one kernel whose name contains `name`. Errors: ERR_ARGUMENT if none or several do.
const KernelTraffic& traffic_of(const std::vector<KernelTraffic>& report, const std::string& name);
/// A table: a line per kernel, below it a line per source line.
void print_traffic(std::FILE* to, const std::vector<KernelTraffic>& report);

// ---- for hooks.cpp

namespace traffic {

bool counting();
void launch_begins(const LaunchInfo& launch);
void launch_ends();
void block_ends();
void access(const Context& thread, shadow::Space space, const void* address, uint32_t bytes, uint8_t kind,
            uint32_t site);

}  // namespace traffic

}  // namespace minigpt4::simt
