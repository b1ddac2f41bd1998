// The memory report: its numbers for kernels whose traffic is known on paper, at every order of their threads.
#include <map>
#include <sstream>

#include "simt/traffic.h"
#include "simt_hooks_case.h"

using namespace minigpt4;
using namespace planted;

namespace {

/// The report of one launch.
template <class Body>
simt::KernelTraffic traffic_by(const std::string& kernel, Body&& body) {
  simt::begin_traffic();
  const std::vector<Finding> findings = findings_of(body);
  for (const Finding& finding : findings) check::failed(__FILE__, __LINE__, finding.text);
  const std::vector<simt::KernelTraffic> report = simt::take_traffic();
  return simt::traffic_of(report, kernel);
}
simt::TrafficCount at(const simt::KernelTraffic& traffic, const std::string& name, bool shared, uint8_t kind) {
  const int line = line_of("patterns.cu", "line", name);
  return traffic.at("simt_kernels/patterns.cu", line, line, shared, kind);
}
std::vector<float> zeros(size_t count) { return std::vector<float>(count); }

template <int padding>
double ldmatrix_over_ideal() {
  const simt::KernelTraffic traffic = traffic_by("tile_rows", [] {
    const Device<uint32_t> y(32);
    (void)gpu::launch(pattern::tile_rows<padding>, how(1, 32), y);
  });
  const simt::TrafficCount count = at(traffic, "ldmatrix", true, simt::kind_read);
  CHECK_EQUAL(count.requests, uint64_t(1));
  CHECK_EQUAL(count.ideal, uint64_t(4));  // four matrices, eight rows of sixteen bytes each
  return count.wavefronts_over_ideal();
}
template <int padding>
double transpose_over_ideal() {
  const simt::KernelTraffic traffic = traffic_by("transpose", [] {
    const Device<float> x(zeros(1024)), y(1024);
    (void)gpu::launch(pattern::transpose<padding>, how(1, 32), y, x);
  });
  const simt::TrafficCount count = at(traffic, "turned", true, simt::kind_read);
  CHECK_EQUAL(count.requests, uint64_t(32));
  CHECK_EQUAL(traffic.shared_writes.wavefronts_over_ideal(), 1.0);
  return count.wavefronts_over_ideal();
}

}  // namespace

TEST("simt traffic: bank conflicts of ldmatrix and of columns, gone with padding") {
  // rows of 64 bytes: every other row in the same 16 banks, four deep
  CHECK_EQUAL(ldmatrix_over_ideal<0>(), 4.0);
  CHECK_EQUAL(ldmatrix_over_ideal<8>(), 1.0);
  // a column of a tile of 32 words: one bank
  CHECK_EQUAL(transpose_over_ideal<0>(), 32.0);
  CHECK_EQUAL(transpose_over_ideal<1>(), 1.0);
}
TEST("simt traffic: wide shared accesses go in phases, and one word is free for all") {
  const simt::KernelTraffic traffic = traffic_by("wide", [] {
    const Device<float> y(32);
    (void)gpu::launch(pattern::wide, how(1, 32), y);
  });
  const simt::TrafficCount four = at(traffic, "wide4", true, simt::kind_write);
  CHECK_EQUAL(four.ideal, uint64_t(4));
  CHECK_EQUAL(four.wavefronts, uint64_t(4));
  const simt::TrafficCount two = at(traffic, "wide2", true, simt::kind_write);
  CHECK_EQUAL(two.ideal, uint64_t(2));
  CHECK_EQUAL(two.wavefronts, uint64_t(2));
  // eight words, four banks apart: 0, 4, ... 28, each asked for by four lanes
  CHECK_EQUAL(at(traffic, "broadcast", true, simt::kind_read).wavefronts, uint64_t(1));
}
TEST("simt traffic: sixteen bytes a lane are 16 sectors a request, all of them useful") {
  const simt::KernelTraffic traffic = traffic_by("copy4", [] {
    const Device<float> x(zeros(4 * 100)), y(4 * 100);
    (void)gpu::launch(pattern::copy4, how(2, 64), reinterpret_cast<float4*>(+y), reinterpret_cast<const float4*>(+x),
                      96);
  });
  CHECK_EQUAL(traffic.launches, uint64_t(1));
  CHECK_EQUAL(traffic.global_reads.requests, uint64_t(3));
  CHECK_EQUAL(traffic.global_reads.sectors_per_request(), 16.0);
  CHECK_EQUAL(traffic.global_reads.useful(), 1.0);
  CHECK_EQUAL(traffic.global_writes.sectors_per_request(), 16.0);
  CHECK_EQUAL(traffic.global_writes.useful(), 1.0);
  CHECK_EQUAL(traffic.bytes_read, uint64_t(96 * 16));
  CHECK_EQUAL(traffic.bytes_written, uint64_t(96 * 16));
  const simt::KernelTraffic by_wrapper = traffic_by("copy_ldg", [] {
    const Device<uint32_t> x(std::vector<uint32_t>(128)), y(128);
    (void)gpu::launch(pattern::copy_ldg, how(1, 32), reinterpret_cast<uint4*>(+y), reinterpret_cast<const uint4*>(+x));
  });
  // the wrapper's load stands for the line that called it
  CHECK_EQUAL(at(by_wrapper, "ldg128", false, simt::kind_read).sectors, uint64_t(16));
}
TEST("simt traffic: blocks of 18 bytes waste most of what they move") {
  const simt::KernelTraffic traffic = traffic_by("blocks18", [] {
    const Device<uint8_t> x(std::vector<uint8_t>(16 * 18));
    const Device<uint32_t> y(64);
    (void)gpu::launch(pattern::blocks18, how(1, 64), y, x);
  });
  // Two warps of 8 blocks, 144 bytes each. Scales at 0, 18, ... 126 of a warp: sectors 0 to 3 of the first, and, beginning in
  // the middle of a sector, 5 of the second; 16 bytes a warp are asked for.
  const simt::TrafficCount scale = at(traffic, "scale", false, simt::kind_read);
  CHECK_EQUAL(scale.requests, uint64_t(2));
  CHECK_EQUAL(scale.sectors, uint64_t(4 + 5));
  CHECK_EQUAL(scale.useful_bytes, uint64_t(2 * 16));
  // Half of the nibbles: 32 lanes with two bytes each out of 5 sectors, in both warps.
  const simt::TrafficCount low = at(traffic, "low", false, simt::kind_read);
  CHECK_EQUAL(low.sectors, uint64_t(5 + 5));
  CHECK_EQUAL(low.useful_bytes, uint64_t(2 * 64));
  CHECK_NEAR(low.useful(), 0.4, 1e-9);
  CHECK_EQUAL(traffic.bytes_read, uint64_t(16 * 18));  // 9 sectors, each once
}
TEST("simt traffic: a column of a matrix is a sector for each lane") {
  const simt::KernelTraffic traffic = traffic_by("column", [] {
    const Device<float> x(zeros(32 * 64)), y(32);
    (void)gpu::launch(pattern::column, how(1, 32), y, x, 64, 5);
  });
  const simt::TrafficCount count = at(traffic, "column", false, simt::kind_read);
  CHECK_EQUAL(count.sectors_per_request(), 32.0);
  CHECK_NEAR(count.useful(), 4.0 / 32, 1e-9);
  CHECK_EQUAL(traffic.bytes_read, uint64_t(32 * 32));
}
TEST("simt traffic: the same at every order of the threads") {
  std::map<std::string, int> seen;
  for (const Order order : simt_case::orders) {
    simt::begin_traffic();
    findings_of({.order = order, .preempt_every = 7}, [] {
      const Device<float> x(zeros(32 * 32)), y(32);
      (void)gpu::launch(pattern::ragged, how(1, 32), y, x);
      matmul_error<Defect::none>(32, 64, 48);
    });
    const std::vector<simt::KernelTraffic> report = simt::take_traffic();
    const simt::TrafficCount ragged = at(simt::traffic_of(report, "ragged"), "ragged", false, simt::kind_read);
    // request n has the lanes from n on: 128 bytes, then from lane 8, 16 and 24 on a sector less
    CHECK_EQUAL(ragged.requests, uint64_t(32));
    CHECK_EQUAL(ragged.sectors, uint64_t(8 * (4 + 3 + 2 + 1)));
    const simt::KernelTraffic& product = simt::traffic_of(report, "matmul");
    std::ostringstream text;
    for (const simt::TrafficLine& line : product.lines) {
      text << line.line << ' ' << line.shared << ' ' << int(line.kind) << ' ' << line.count.requests << ' '
           << line.count.sectors << ' ' << line.count.wavefronts << '\n';
    }
    ++seen[text.str()];
    // padded tiles: no bank conflict anywhere in the kernel; its rows of 32 bytes are whole sectors
    CHECK_EQUAL(product.shared_reads.wavefronts_over_ideal(), 1.0);
    CHECK_EQUAL(product.global_reads.useful(), 1.0);
    CHECK_EQUAL(product.bytes_written, uint64_t(32 * 64 * 4));
  }
  CHECK_EQUAL(seen.size(), size_t(1));
}
TEST("simt traffic: launches of a kernel add up, names must be clear") {
  simt::begin_traffic();
  const Device<float> x(zeros(32 * 64)), y(32);
  for (int i = 0; i < 3; ++i) (void)gpu::launch(pattern::column, how(1, 32), y, x, 64, i);
  const std::vector<simt::KernelTraffic> report = simt::take_traffic();
  CHECK_EQUAL(simt::traffic_of(report, "column").launches, uint64_t(3));
  CHECK_EQUAL(simt::traffic_of(report, "column").bytes_read, uint64_t(3 * 32 * 32));
  CHECK_ERROR(code::argument, "no kernel", simt::traffic_of(report, "row"));
  CHECK(simt::take_traffic().empty());
}
