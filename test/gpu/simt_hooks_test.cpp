// The emulator's memory checker. The kernels in simt_kernels/ are compiled with the hook flags, so that every access of
// theirs is seen: each planted defect is found at its line, and kernels without one are never blamed, whatever the order of
// their threads.
#include <cmath>
#include <memory>

#include "simt_hooks_case.h"

using namespace minigpt4;
using namespace planted;

namespace {

// ---- the four kernels with their right results

template <Defect defect>
double row_sums_error(int rows, int width) {
  const std::vector<float> x = random_floats(size_t(rows) * width, 1);
  const Device<float> y{size_t(rows)}, from(x);
  // as many blocks as a careless host might launch: the kernel looks for itself
  (void)gpu::launch(row_sums<defect>, how(rows + 1, 256), y, from, rows, width);
  const std::vector<float> found = y.values();
  double worst = 0;
  for (int row = 0; row < rows; ++row) {
    double sum = 0;
    for (int i = 0; i < width; ++i) sum += x[size_t(row) * width + i];
    worst = std::fmax(worst, std::isnan(found[row]) ? INFINITY : std::fabs(found[row] - sum));
  }
  return worst;
}

template <Defect defect>
double softmax_error(int rows, int width) {
  const std::vector<float> x = random_floats(size_t(rows) * width, 4);
  const Device<float> y{x.size()}, from(x);
  (void)gpu::launch(softmax<defect>, how((rows + 7) / 8, 256), y, from, rows, width);
  const std::vector<float> found = y.values();
  double worst = 0;
  for (int row = 0; row < rows; ++row) {
    double sum = 0;
    for (int i = 0; i < width; ++i) sum += std::exp(double(x[size_t(row) * width + i]));
    for (int i = 0; i < width; ++i) {
      const float value = found[size_t(row) * width + i];
      const double error = std::fabs(value - std::exp(double(x[size_t(row) * width + i])) / sum);
      worst = std::fmax(worst, std::isnan(value) ? INFINITY : error);
    }
  }
  return worst;
}

template <Defect defect>
int histogram_errors(int n, int bins) {
  std::vector<int> x, expected(bins, 0);
  for (const float value : random_floats(n, 5)) x.push_back(int((value + 1) / 2.001f * bins));
  for (const int value : x) ++expected[value];
  const Device<int> counts(std::vector<int>(bins, 0)), from(x);
  (void)gpu::launch(histogram<defect>, how(3, 96), counts, from, n, bins);
  const std::vector<int> found = counts.values();
  int wrong = 0;
  for (int i = 0; i < bins; ++i) wrong += found[i] != expected[i];
  return wrong;
}

// Sums of up to 300 values below 1 in float32: 300 roundings of at most 300 · 2^-24 each.
constexpr double row_sums_bound = 300 * 300 * 0x1p-24;
// Products of bf16 are exact in float32; K <= 112 additions of at most 2^-24 of the sum of absolute values, which is at
// most some 30 times the greatest output here.
constexpr double matmul_bound = 112 * 30 * 0x1p-24;
// Outputs are at most 1; exp, 1/x and the product are good to a few units, the sum of 77 terms to 77 · 2^-24.
constexpr double softmax_bound = 100 * 0x1p-24;

}  // namespace

TEST("simt hooks: kernels without a defect are never blamed, at any order of their threads") {
  int runs = 0;
  for (const Order order : {Order::fifo, Order::lifo, Order::random, Order::priority}) {
    for (const unsigned preempt_every : {0u, 20u, 3u}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        const simt::Options options = {.order = order, .seed = seed, .preempt_every = preempt_every};
        const std::vector<Finding> findings = findings_of(options, [] {
          CHECK(row_sums_error<Defect::none>(3, 300) <= row_sums_bound);
          CHECK(matmul_error<Defect::none>(64, 32, 112) <= matmul_bound);
          CHECK(softmax_error<Defect::none>(11, 77) <= softmax_bound);
          CHECK_EQUAL(histogram_errors<Defect::none>(1000, 50), 0);
        });
        for (const Finding& finding : findings) check::failed(__FILE__, __LINE__, finding.text);
        ++runs;
      }
    }
  }
  CHECK_EQUAL(runs, 60);
}

// ---- every defect of the list, at every order: what finds it does not depend on luck

namespace {

/// The defect's finding at its line, naming the line it meets where there is one, at every order and with preemption.
template <class Body>
void check_planted(FindingKind kind, const std::string& file, const std::string& name, bool meets,
                   const std::string& words, Body&& body) {
  const int line = line_of(file, "defect", name);
  std::string met = words;
  if (meets) met = place(file, line_of(file, "met by", name));
  for (const Order order : simt_case::orders) {
    for (const unsigned preempt_every : {0u, 5u}) {
      const std::vector<Finding> findings = findings_of({.order = order, .preempt_every = preempt_every}, body);
      const std::string missing = lacks(findings, kind, file, line, met);
      if (missing.empty()) continue;
      // of two accesses that race, the later one is blamed: which one that is, is the order's choice
      if (meets && lacks(findings, kind, file, line_of(file, "met by", name), place(file, line)).empty()) continue;
      check::failed(__FILE__, __LINE__, name + ", order " + std::to_string(int(order)) + ": " + missing);
    }
  }
}

}  // namespace

TEST("simt hooks: a missing __syncthreads in a reduction is a race of two named lines") {
  check_planted(FindingKind::race, "correct.cu", "reduction_barrier", true, "",
                [] { row_sums_error<Defect::reduction_barrier>(2, 300); });
}
TEST("simt hooks: a barrier that half of the block does not reach") {
  check_planted(FindingKind::barrier, "correct.cu", "divergent_barrier", false, "",
                [] { row_sums_error<Defect::divergent_barrier>(2, 300); });
}
TEST("simt hooks: a buffer filled again before all have read it is a race") {
  check_planted(FindingKind::race, "correct.cu", "buffer_reuse", true, "",
                [] { matmul_error<Defect::buffer_reuse>(32, 32, 64); });
}
TEST("simt hooks: data read before its cp.async was waited for") {
  check_planted(FindingKind::in_flight, "correct.cu", "early_use", true, "",
                [] { matmul_error<Defect::early_use>(32, 32, 64); });
}
TEST("simt hooks: swapped registers of a B fragment are seen in the numbers, and nowhere else") {
  const std::vector<Finding> findings =
      findings_of([] { CHECK(matmul_error<Defect::swapped_fragment>(32, 32, 64) > 0.3); });
  CHECK_EQUAL(findings.size(), size_t(0));
}
TEST("simt hooks: a read behind a shared array names the array") {
  check_planted(FindingKind::out_of_bounds, "correct.cu", "shared_overrun", false, "behind the 1024 bytes of 'partial'",
                [] { row_sums_error<Defect::shared_overrun>(1, 300); });
}
TEST("simt hooks: a row too many is a read behind the allocation") {
  check_planted(FindingKind::out_of_bounds, "correct.cu", "row_overrun", false, "behind an allocation of 2400 bytes",
                [] { row_sums_error<Defect::row_overrun>(2, 300); });
}
TEST("simt hooks: += by several blocks is a race between blocks") {
  check_planted(FindingKind::race, "correct.cu", "lost_update", false, "blocks of one launch have no order",
                [] { histogram_errors<Defect::lost_update>(500, 20); });
}
TEST("simt hooks: a full mask where half of the warp comes") {
  for (const Order order : simt_case::orders) {
    const std::vector<Finding> findings =
        findings_of({.order = order}, [] { softmax_error<Defect::half_warp_shuffle>(8, 77); });
    // the other half stands in the next shuffle of the warp: whoever comes later is told of the other
    bool found = false;
    for (const Finding& finding : findings) {
      found =
          found || (finding.kind == FindingKind::collective && finding.text.find("0xffffffff") != std::string::npos &&
                    finding.text.find(place("correct.cu", line_of("correct.cu", "defect", "half_warp_shuffle"))) !=
                        std::string::npos);
    }
    CHECK(found);
  }
}
TEST("simt hooks: a missing __syncwarp between a lane's write and the others' read") {
  check_planted(FindingKind::race, "correct.cu", "missing_syncwarp", true, "",
                [] { softmax_error<Defect::missing_syncwarp>(8, 77); });
}

TEST("simt hooks: memory nobody wrote") {
  check_planted(FindingKind::uninitialised, "wrong.cu", "input", false, "nobody has written", [] {
    const Device<float> x(100), y(100);
    (void)gpu::launch(add_one, how(1, 128), y, x, 100);
  });
  // one float short of all
  const std::vector<Finding> findings = findings_of([] {
    const Device<float> x(100), y(100);
    CHECK(cudaMemset(x, 0, 99 * sizeof(float)) == cudaSuccess);
    (void)gpu::launch(add_one, how(1, 128), y, x, 99);
    CHECK_EQUAL(simt::findings_count(), uint64_t(0));
    (void)gpu::launch(add_one, how(1, 128), y, y, 99);  // what a kernel wrote counts
    CHECK_EQUAL(simt::findings_count(), uint64_t(0));
    (void)gpu::launch(add_one, how(1, 128), y, x, 100);
  });
  CHECK_EQUAL(findings.size(), size_t(1));
  CHECK_FOUND(findings, FindingKind::uninitialised, "wrong.cu", line_of("wrong.cu", "defect", "input"), "at byte 396");
}
TEST("simt hooks: a pointer of the host, null, freed memory, and one element too many") {
  static float on_the_host[100];
  const std::unique_ptr<float[]> heap(new float[100]());
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "input", false, "no device memory", [&] {
    const Device<float> y(100);
    (void)gpu::launch(add_one, how(1, 128), y, heap.get(), 100);
  });
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "input", false, "the host program's own data", [&] {
    const Device<float> x(std::vector<float>(100));
    (void)gpu::launch(add_one, how(1, 128), on_the_host, x, 100);
  });
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "input", false, "null", [&] {
    const Device<float> y(100);
    (void)gpu::launch(add_one, how(1, 1), y, static_cast<const float*>(nullptr), 100);
  });
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "input", false, "4-byte read", [&] {
    const Device<float> y(100);
    const float* gone = std::make_unique<Device<float>>(100)->operator float*();
    (void)gpu::launch(add_one, how(1, 128), y, gone, 100);
  });
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "input", false, "4-byte write lies 0 bytes behind", [&] {
    const Device<float> x(std::vector<float>(101)), y(100);
    (void)gpu::launch(add_one, how(1, 128), y, x, 101);
  });
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "input", false, "4 bytes before an allocation of 400", [&] {
    const Device<float> x(std::vector<float>(100)), y(100);
    (void)gpu::launch(add_one, how(1, 1), y, x - 1, 100);
  });
}
TEST("simt hooks: the process and later launches go on after a launch was given up") {
  const Device<float> x(std::vector<float>(100, 2.0f)), y(100);
  const std::vector<Finding> findings = findings_of([&] {
    (void)gpu::launch(add_one, how(1, 128), y, static_cast<const float*>(nullptr), 100);
    CHECK(simt::findings_count() > 0);
    simt::take_findings();
    (void)cudaGetLastError();
    CHECK(gpu::launch(add_one, how(1, 128), y, x, 100) == cudaSuccess);
    CHECK(y.values() == std::vector<float>(100, 3.0f));
  });
  CHECK_EQUAL(findings.size(), size_t(0));
}
TEST("simt hooks: addresses that are not aligned as their access") {
  const Device<float> x(std::vector<float>(64, 1.0f));
  const Device<float> y(1);
  const auto at_shift = [&](void (*kernel)(float*, const float*, int), int shift) {
    return [&, kernel, shift] { (void)gpu::launch(kernel, how(1, 1), y, x, shift); };
  };
  for (const int shift : {0, 4}) {
    CHECK_EQUAL(findings_of(at_shift(load_float4, shift)).size(), size_t(0));
    CHECK_EQUAL(findings_of(at_shift(load_ldg128, shift)).size(), size_t(0));
    CHECK_EQUAL(findings_of(at_shift(load_ldg64, shift + 2)).size(), size_t(0));
    CHECK_EQUAL(findings_of(at_shift(load_cp_async, shift)).size(), size_t(0));
  }
  check_planted(FindingKind::misaligned, "wrong.cu", "cast", false, "", at_shift(load_float4, 1));
  check_planted(FindingKind::misaligned, "wrong.cu", "ldg128", false, "", at_shift(load_ldg128, 2));
  check_planted(FindingKind::misaligned, "wrong.cu", "ldg64", false, "", at_shift(load_ldg64, 1));
  for (const Finding& finding : findings_of(at_shift(load_cp_async, 2))) {
    CHECK(finding.kind == FindingKind::copy || finding.kind == FindingKind::misaligned);
    CHECK_EQUAL(finding.line, line_of("wrong.cu", "defect", "cp_async"));
  }
}
TEST("simt hooks: another thread's local variable") {
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "local", false, "local variables of another thread", [] {
    const Device<float> y(32);
    (void)gpu::launch(foreign_local, how(1, 32), y);
  });
}
TEST("simt hooks: an element too many in one part of dynamic shared memory, into the next") {
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "part", false, "a part of dynamic shared memory", [] {
    const Device<float> y(64);
    (void)gpu::launch(part_overrun, how(1, 64, 2 * gpu::shared_bytes<float>(64)), y, 64);
  });
}
TEST("simt hooks: a plain read beside atomics, in a block and between blocks; atomics alone are fine") {
  for (const int blocks : {1, 3}) {
    check_planted(FindingKind::race, "wrong.cu", "atomic", true, "", [&] {
      const Device<int> counter(std::vector<int>(1)), y{size_t(blocks)};
      (void)gpu::launch(plain_beside_atomic, how(blocks, 64), counter, y);
    });
  }
}
TEST("simt hooks: a __syncwarp of some lanes orders those alone") {
  const auto read_by = [](int reader) {
    return [reader] {
      const Device<int> y(1);
      (void)gpu::launch(partial_syncwarp, how(1, 32), y, reader);
    };
  };
  CHECK_EQUAL(findings_of(read_by(1)).size(), size_t(0));
  CHECK_FOUND(findings_of(read_by(2)), FindingKind::race, "wrong.cu", line_of("wrong.cu", "defect", "partial"));
}
TEST("simt hooks: a __syncwarp orders no two warps") {
  check_planted(FindingKind::race, "wrong.cu", "warps", true, "", [] {
    const Device<int> y(1);
    (void)gpu::launch(syncwarp_of_each, how(1, 64), y);
  });
}
TEST("simt hooks: what one thread waited for is not there for another before a barrier") {
  const auto body = [] {
    const Device<float> x(std::vector<float>(4)), y(1);
    (void)gpu::launch(unshared_copy, how(1, 32), y, x);
  };
  const int reads = line_of("wrong.cu", "defect", "unshared"), copies = line_of("wrong.cu", "met by", "unshared");
  // the waiting thread first: its copy has ended, without an order; the reader first: it has not ended
  CHECK_FOUND(findings_of({.order = Order::fifo}, body), FindingKind::race, "wrong.cu", reads,
              place("wrong.cu", copies));
  CHECK_FOUND(findings_of({.order = Order::lifo}, body), FindingKind::in_flight, "wrong.cu", reads,
              place("wrong.cu", copies));
}
TEST("simt hooks: a copy's source is checked as any read") {
  check_planted(FindingKind::uninitialised, "wrong.cu", "cp_async", false, "nobody has written", [] {
    const Device<float> x(8), y(1);
    (void)gpu::launch(load_cp_async, how(1, 1), y, x, 4);
  });
}
TEST("simt hooks: an access that begins inside of an allocation and ends behind it") {
  check_planted(FindingKind::out_of_bounds, "wrong.cu", "cast", false, "reaches 4 bytes beyond an allocation of 12",
                [] {
                  const Device<float> x(std::vector<float>(3)), y(1);
                  (void)gpu::launch(load_float4, how(1, 1), y, x, 0);
                });
}
TEST("simt hooks: a finding fails its launch, and the next one is judged by itself") {
  const Device<float> x(std::vector<float>(100, 2.0f)), unwritten(100), y(100);
  simt::take_findings();
  CHECK(gpu::launch(add_one, how(1, 128), y, x, 100) == cudaSuccess);
  CHECK(gpu::launch(add_one, how(1, 128), y, unwritten, 100) == cudaErrorLaunchFailure);
  CHECK_FOUND(simt::take_findings(), FindingKind::uninitialised, "wrong.cu", line_of("wrong.cu", "defect", "input"));
  (void)cudaGetLastError();
  CHECK(gpu::launch(add_one, how(1, 128), y, x, 100) == cudaSuccess);
}
TEST("simt hooks: a write after reads by others, the writer having read last") {
  check_planted(FindingKind::race, "wrong.cu", "readers", true, "", [] {
    const Device<float> y(64);
    (void)gpu::launch(write_after_reads, how(1, 64), y);
  });
}
TEST("simt hooks: neighbours that write single bytes of one word do not conflict") {
  for (const Order order : simt_case::orders) {
    const std::vector<Finding> findings = findings_of({.order = order}, [] {
      const Device<uint8_t> x(std::vector<uint8_t>(90, 1)), y(90);
      (void)gpu::launch(add_one_to_bytes, how(3, 30), y, x, 90);
      CHECK(y.values() == std::vector<uint8_t>(90, 2));
    });
    CHECK_EQUAL(findings.size(), size_t(0));
  }
}
TEST("simt hooks: global memory touched before a launch that overlaps has waited") {
  const auto body = [](void (*kernel)(int*, const int*), bool overlapping) {
    return [=] {
      const Device<int> x(std::vector<int>(32)), y(std::vector<int>(32));
      (void)gpu::launch(kernel, {.grid = 1, .block = 32, .overlapping = overlapping}, y, x);
    };
  };
  const std::pair<const char*, void (*)(int*, const int*)> kernels[] = {
      {"early_read", touches_early<Early::read>},     {"early_ldg", touches_early<Early::ldg>},
      {"early_copy", touches_early<Early::copy>},     {"early_write", touches_early<Early::write>},
      {"early_atomic", touches_early<Early::atomic>},
  };
  for (const auto& [defect, kernel] : kernels) {
    check_planted(FindingKind::overlap, "wrong.cu", defect, false, "before it waited", body(kernel, true));
    CHECK_EQUAL(findings_of(body(kernel, false)).size(), size_t(0));
  }
  CHECK_EQUAL(findings_of(body(touches_early<Early::nothing>, true)).size(), size_t(0));
}
