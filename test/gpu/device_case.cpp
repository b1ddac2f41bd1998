#include "device_case.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <utility>

#include "ops/cuda/devices.h"
#ifdef MINIGPT4_SIMT
#include "simt/faults.h"
#include "simt/report.h"
#endif
#ifdef MINIGPT4_SIMT_HOOKS
#include "simt/traffic.h"
#endif

namespace device_case {

namespace {

#ifdef MINIGPT4_SIMT
namespace simt = minigpt4::simt;

/// The emulator as a test finds it.
void begin() {
  const char* words = std::getenv("MINIGPT4_SIMT");
  const char* preempt = std::getenv("MINIGPT4_SIMT_PREEMPT");
  simt::configure(words && *words ? std::string("order=priority,") + words : "order=priority,seed=1");
  simt::Options options = simt::options();
  options.preempt_every = preempt ? unsigned(std::strtoul(preempt, nullptr, 10)) : 0;
  options.findings_fail = true;
  simt::set_options(options);
}

/// A test that left findings fails.
void end() {
  for (const simt::Finding& finding : simt::take_findings()) {
    check::failed(__FILE__, __LINE__, std::string(simt::name(finding.kind)) + ": " + finding.text);
  }
}

const bool registered = [] {
  begin();
  check::after_each().push_back([] {
    end();
    begin();
  });
  return true;
}();
#endif

}  // namespace

Ops& device() {
  static std::unique_ptr<Ops> ops;
  if (!ops) {
    try {
      ops = minigpt4::cuda::make_device_ops(0);
    } catch (const minigpt4::Error& error) {
      if (std::string(error.code()) != minigpt4::code::no_backend) throw;
      throw check::Skip{error.what()};
    }
  }
  return *ops;
}

Ops& reference() { return ops_case::cpu("scalar", 1); }

Pair on_both(const std::function<Floats(Ops&)>& run) {
  Pair pair;
  pair.found = run(device());
  pair.expected = run(reference());
  return pair;
}

void near(const std::string& what, const Pair& pair, const std::vector<double>& allowed) {
  if (pair.found.size() != pair.expected.size() || pair.found.size() != allowed.size()) {
    return check::failed(__FILE__, __LINE__,
                         what + ": found " + std::to_string(pair.found.size()) + " values, expected " +
                             std::to_string(pair.expected.size()) + " with " + std::to_string(allowed.size()) +
                             " allowed errors");
  }
  ops_case::near(what, pair.found, {pair.expected.begin(), pair.expected.end()}, allowed);
}

void near(const std::string& what, const Pair& pair, double relative, double absolute) {
  std::vector<double> allowed;
  for (float value : pair.expected) allowed.push_back(relative * std::fabs(double(value)) + absolute);
  near(what, pair, allowed);
}

void same(const std::string& what, const Pair& pair) { ops_case::same_bits(what, pair.found, pair.expected); }

#ifdef MINIGPT4_SIMT_HOOKS
void traffic(const std::string& kernel, const TrafficBounds& bounds, const std::function<void()>& body) {
  const TrafficBounds usual;
  if (bounds.reason.empty() && (bounds.useful_reads < usual.useful_reads ||
                                bounds.useful_writes < usual.useful_writes || bounds.wavefronts > usual.wavefronts)) {
    check::failed(__FILE__, __LINE__, kernel + ": bounds wider than usual need a reason");
  }
  simt::begin_traffic();
  body();
  const std::vector<simt::KernelTraffic> report = simt::take_traffic();
  const simt::KernelTraffic& found = simt::traffic_of(report, kernel);
  simt::TrafficCount shared = found.shared_reads;
  shared.add(found.shared_writes);
  const uint64_t bytes = found.launches ? (found.bytes_read + found.bytes_written) / found.launches : 0;
  const int before = check::failures();
  const auto hold = [&](bool held, const char* words, double value, double bound) {
    if (held) return;
    std::ostringstream text;
    text << kernel << ": " << words << " is " << value << ", bound " << bound;
    check::failed(__FILE__, __LINE__, text.str());
  };
  hold(found.global_reads.useful() >= bounds.useful_reads, "the useful part of the bytes read",
       found.global_reads.useful(), bounds.useful_reads);
  hold(found.global_writes.useful() >= bounds.useful_writes, "the useful part of the bytes written",
       found.global_writes.useful(), bounds.useful_writes);
  hold(shared.wavefronts_over_ideal() <= bounds.wavefronts, "wavefronts over the ideal", shared.wavefronts_over_ideal(),
       bounds.wavefronts);
  hold(bounds.bytes == 0 || double(bytes) <= bounds.bytes, "bytes a launch", double(bytes), bounds.bytes);
  if (check::failures() > before) simt::print_traffic(stdout, report);
}
#else
void traffic(const std::string&, const TrafficBounds&, const std::function<void()>&) {}
#endif

}  // namespace device_case
