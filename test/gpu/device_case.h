// What the tests of a device's ops share: the device, comparisons with the CPU's ops, and what the emulator has to say. The
// same tests run on a GPU, in the emulator, and in the emulator with its memory checks (the hook build).
//
// In the emulator the words of MINIGPT4_SIMT (simt/faults.h: order=lifo,seed=3) and MINIGPT4_SIMT_PREEMPT (one in so many
// accesses to shared memory; hook build) choose how threads take turns; a test that leaves findings fails.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "check.h"
#include "ops_case.h"

namespace device_case {

using minigpt4::Ops;
using ops_case::Floats;

/// The backend under test, made once: device 0. Skips the test where there is none.
Ops& device();
/// What it is compared with: the CPU, level scalar, one thread.
Ops& reference();

/// The same work on both backends: `run` takes its inputs to the backend it is given (ops_case::OnDevice) and returns the
/// results.
struct Pair {
  Floats found, expected;
};
Pair on_both(const std::function<Floats(Ops&)>& run);

/// Fails the test where |found - expected| > allowed[i], element by element; NaN always fails, and so does another number
/// of values.
void near(const std::string& what, const Pair& pair, const std::vector<double>& allowed);
/// The same with allowed = relative · |expected| + absolute.
void near(const std::string& what, const Pair& pair, double relative, double absolute);
/// Every bit the same.
void same(const std::string& what, const Pair& pair);

/// True in the emulator's hook build, whose memory report tests may ask.
constexpr bool counts_traffic() {
#ifdef MINIGPT4_SIMT_HOOKS
  return true;
#else
  return false;
#endif
}
/// Bounds of a kernel's memory report, and why they are not the usual ones where they are not.
struct TrafficBounds {
  double useful_reads = 0.9;   // least part of the bytes read from global memory that was asked for
  double useful_writes = 0.9;  // the same of those written
  double wavefronts = 1.05;    // most wavefronts of shared memory over the ideal, reads and writes
  double bytes = 0;            // most bytes a launch moves (distinct sectors, read and written); 0: not asked
  std::string reason;          // required where one of the first three is wider than usual
};
/// Runs `body` and holds the kernel whose name contains `kernel` to the bounds. Does nothing in other builds than the hook
/// build.
void traffic(const std::string& kernel, const TrafficBounds& bounds, const std::function<void()>& body);

}  // namespace device_case
