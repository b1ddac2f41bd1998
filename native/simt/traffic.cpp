#include "simt/traffic.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <tuple>
#include <unordered_map>

#include "core/error.h"
#include "simt/hooks_sites.h"
#include "simt/traffic_request.h"

namespace minigpt4::simt {
namespace {

using Key = std::tuple<uint32_t, bool, uint8_t>;  // site, shared, kind

/// The requests of one warp at one place: a lane's n-th access belongs to the warp's n-th request.
struct Stream {
  std::array<uint32_t, warp_lanes> times{};
  uint32_t first = 0;  // number of open.front()
  std::deque<WarpRequest> open;
};
struct PerKernel {
  std::string name;
  uint64_t launches = 0, sectors_read = 0, sectors_written = 0;
  std::map<Key, TrafficCount> counts;
};
/// Sectors of device memory that the running launch touched, as bits of pieces of 64.
using Touched = std::unordered_map<uint64_t, uint64_t>;

struct KeyHash {
  size_t operator()(const Key& key) const {
    return size_t(std::get<0>(key)) * 0x9e3779b97f4a7c15u ^ size_t(std::get<1>(key)) << 8 ^ std::get<2>(key);
  }
};

bool on = false;
std::vector<PerKernel> kernels;
PerKernel* running = nullptr;
std::array<std::unordered_map<Key, Stream, KeyHash>, block_warps_limit> streams;
Touched touched_read, touched_written;

uint64_t count_sectors(Touched& touched) {
  uint64_t sectors = 0;
  for (const auto& [piece, bits] : touched) sectors += uint64_t(__builtin_popcountll(bits));
  touched.clear();
  return sectors;
}

void close(const Key& key, const WarpRequest& request) {
  TrafficCount& count = running->counts[key];
  ++count.requests;
  if (std::get<1>(key)) {
    const SharedCost cost = shared_cost(request);
    count.wavefronts += cost.wavefronts;
    count.ideal += cost.ideal;
  } else {
    const GlobalCost cost = global_cost(request);
    count.sectors += cost.sectors;
    count.useful_bytes += cost.useful_bytes;
  }
}

}  // namespace

void TrafficCount::add(const TrafficCount& other) {
  requests += other.requests;
  sectors += other.sectors;
  useful_bytes += other.useful_bytes;
  wavefronts += other.wavefronts;
  ideal += other.ideal;
}

namespace traffic {

bool counting() { return on; }

void launch_begins(const LaunchInfo& launch) {
  if (!on) return;
  const auto found = std::find_if(kernels.begin(), kernels.end(),
                                  [&](const PerKernel& kernel) { return kernel.name == launch.kernel; });
  if (found == kernels.end()) {
    kernels.emplace_back();
    running = &kernels.back();
    running->name = launch.kernel;
  } else {
    running = &*found;
  }
  ++running->launches;
}

void access(const Context& thread, shadow::Space space, const void* address, uint32_t bytes, uint8_t kind,
            uint32_t site) {
  if (!running || (space != shadow::Space::shared && space != shadow::Space::global)) return;
  const uint64_t at = reinterpret_cast<uint64_t>(address);
  const Key key{site, space == shadow::Space::shared, kind};
  if (space == shadow::Space::global) {
    Touched& touched = kind == kind_read ? touched_read : touched_written;
    for (uint64_t sector = at / 32; sector <= (at + bytes - 1) / 32; ++sector)
      touched[sector / 64] |= uint64_t(1) << (sector % 64);
  }
  Stream& stream = streams[thread.warp][key];
  const uint32_t time = stream.times[thread.lane]++;
  while (stream.first + stream.open.size() <= time) stream.open.emplace_back();
  WarpRequest& request = stream.open[time - stream.first];
  request.lanes |= uint32_t(1) << thread.lane;
  request.bytes = std::max(request.bytes, bytes);
  request.address[thread.lane] = at;
  while (!stream.open.empty() && stream.open.front().lanes == ~uint32_t(0)) {
    close(key, stream.open.front());
    stream.open.pop_front();
    ++stream.first;
  }
}

void block_ends() {
  if (!running) return;
  for (auto& warp : streams) {
    for (auto& [key, stream] : warp)
      for (const WarpRequest& request : stream.open) close(key, request);
    warp.clear();
  }
}

void launch_ends() {
  if (!running) return;
  running->sectors_read += count_sectors(touched_read);
  running->sectors_written += count_sectors(touched_written);
  running = nullptr;
}

}  // namespace traffic

void begin_traffic() {
  kernels.clear();
  on = true;
}

std::vector<KernelTraffic> take_traffic() {
  on = false;
  std::vector<uint32_t> sites;
  for (const PerKernel& kernel : kernels)
    for (const auto& [key, count] : kernel.counts) sites.push_back(std::get<0>(key));
  source_lines(sites);  // looks all of them up at once
  std::vector<KernelTraffic> report;
  for (const PerKernel& kernel : kernels) {
    KernelTraffic& traffic = report.emplace_back();
    traffic.kernel = kernel.name;
    traffic.launches = kernel.launches;
    traffic.bytes_read = kernel.sectors_read * 32;
    traffic.bytes_written = kernel.sectors_written * 32;
    std::map<std::tuple<SourceLine, bool, uint8_t>, TrafficCount> lines;
    for (const auto& [key, count] : kernel.counts) {
      const auto& [site, shared, kind] = key;
      lines[{source_lines({site})[0], shared, kind}].add(count);
      const bool read = kind == kind_read;
      (shared ? read ? traffic.shared_reads : traffic.shared_writes
       : read ? traffic.global_reads
              : traffic.global_writes)
          .add(count);
    }
    for (const auto& [key, count] : lines) {
      const auto& [line, shared, kind] = key;
      traffic.lines.push_back({line.file, line.line, shared, kind, count});
    }
  }
  kernels.clear();
  return report;
}

TrafficCount KernelTraffic::at(const std::string& file_end, int first, int last, bool shared, uint8_t kind) const {
  TrafficCount sum;
  for (const TrafficLine& line : lines) {
    if (line.file.ends_with(file_end) && line.line >= first && line.line <= last && line.shared == shared &&
        line.kind == kind) {
      sum.add(line.count);
    }
  }
  return sum;
}

const KernelTraffic& traffic_of(const std::vector<KernelTraffic>& report, const std::string& name) {
  const KernelTraffic* found = nullptr;
  for (const KernelTraffic& traffic : report) {
    if (traffic.kernel.find(name) == std::string::npos) continue;
    if (found) {
      fail(code::argument, "the name '", name, "' fits the kernels '", found->kernel, "' and '", traffic.kernel,
           "', expected it to fit one");
    }
    found = &traffic;
  }
  if (!found) fail(code::argument, "no kernel that was launched has '", name, "' in its name");
  return *found;
}

void print_traffic(std::FILE* to, const std::vector<KernelTraffic>& report) {
  const auto row = [&](const std::string& name, const TrafficCount& count) {
    if (!count.requests) return;
    std::fprintf(to, "  %-48s %10llu", name.c_str(), static_cast<unsigned long long>(count.requests));
    if (count.ideal) {
      std::fprintf(to, "  %5.2f wavefronts over ideal\n", count.wavefronts_over_ideal());
    } else {
      std::fprintf(to, "  %5.2f sectors a request, %3.0f %% useful\n", count.sectors_per_request(),
                   100 * count.useful());
    }
  };
  for (const KernelTraffic& traffic : report) {
    std::fprintf(to, "%s\n  %llu launches, %llu bytes read, %llu bytes written\n", traffic.kernel.c_str(),
                 static_cast<unsigned long long>(traffic.launches), static_cast<unsigned long long>(traffic.bytes_read),
                 static_cast<unsigned long long>(traffic.bytes_written));
    row("all global reads", traffic.global_reads);
    row("all global writes", traffic.global_writes);
    row("all shared reads", traffic.shared_reads);
    row("all shared writes", traffic.shared_writes);
    for (const TrafficLine& line : traffic.lines) {
      const std::string kind = line.kind == kind_read ? " read" : line.kind == kind_write ? " write" : " atomic";
      const size_t slash = line.file.rfind('/');
      row("    " + line.file.substr(slash == std::string::npos ? 0 : slash + 1) + ":" + std::to_string(line.line) +
              (line.shared ? " shared" : " global") + kind,
          line.count);
    }
  }
}

}  // namespace minigpt4::simt
