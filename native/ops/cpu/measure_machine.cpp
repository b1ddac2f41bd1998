// What the machine can do at most: the level's loops (kernels/peak.h) on all threads together, in small pieces as the
// ops share their work, so that a busy neighbour takes as much from the limit as from what is compared with it.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <vector>

#include "core/arena.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "ops/cpu/levels.h"
#include "ops/ops.h"

namespace minigpt4 {

namespace {

constexpr size_t kReadPiece = size_t(4) << 20;  // of memory, far more than taking a piece costs
constexpr double kPieceSeconds = 1e-3;          // of a loop on registers
constexpr int kPiecesOfAThread = 30;            // in a pass

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Nanoseconds that this process's threads were on a core and waited for one; both 0 where the system does not tell.
struct Scheduled {
  double on = 0, waited = 0;
};
Scheduled scheduled() {
  Scheduled sum;
  std::error_code ignored;  // other systems than Linux, or a thread that ended: what is known so far
  std::filesystem::directory_iterator thread("/proc/self/task", ignored);
  for (; thread != std::filesystem::directory_iterator(); thread.increment(ignored)) {
    double on = 0, waited = 0;
    if (std::ifstream(thread->path() / "schedstat") >> on >> waited) {
      sum.on += on;
      sum.waited += waited;
    }
  }
  return sum;
}

PeakRate rate_of(int passes, const std::function<double()>& pass) {
  pass();  // threads and clocks
  std::vector<double> rates;
  for (int i = 0; i < passes; ++i) {
    const double began = seconds();
    const double done = pass();
    rates.push_back(done / (seconds() - began));
  }
  std::sort(rates.begin(), rates.end());
  return {rates[rates.size() / 2], rates.back()};
}

/// Where a thread's loops leave what they found: a cache line each.
struct alignas(64) Result {
  uint64_t value = 0;
  double done = 0;
};

PeakRate loop_rate(ThreadPool& pool, cpu::PeakLoop loop, int passes) {
  std::vector<Result> results(static_cast<size_t>(pool.threads()));
  const auto seed = [&](int thread) {
    return cpu::PeakSeed{0.5f, float(passes), uint8_t(1 + passes % 2), &results[size_t(thread)].value};
  };
  int64_t rounds = 64;
  for (double took = 0; took < kPieceSeconds; rounds *= 2) {
    const double began = seconds();
    loop(rounds, seed(0));
    took = seconds() - began;
  }
  return rate_of(passes, [&] {
    for (Result& result : results) result.done = 0;
    pool.parallel_for(int64_t(kPiecesOfAThread) * pool.threads(), 1, [&](int64_t, int64_t, int thread) {
      results[size_t(thread)].done += loop(rounds, seed(thread));
    });
    double done = 0;
    for (const Result& result : results) done += result.done;
    return done;
  });
}

PeakRate read_rate(ThreadPool& pool, const cpu::Level& level, size_t bytes, int passes) {
  Arena arena;
  const auto pieces = int64_t(bytes / kReadPiece);
  auto* const memory = static_cast<uint8_t*>(arena.take(size_t(pieces) * kReadPiece, "memory to be read"));
  // pages that were never written would all show the same page of zeros
  pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t, int) {
    std::memset(memory + size_t(begin) * kReadPiece, int(begin) | 1, kReadPiece);
  });
  std::vector<Result> results(static_cast<size_t>(pool.threads()));
  return rate_of(passes, [&] {
    pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t, int thread) {
      results[size_t(thread)].value += level.peaks.read(memory + size_t(begin) * kReadPiece, kReadPiece);
    });
    return double(pieces) * double(kReadPiece);
  });
}

}  // namespace

MachineRates measure_machine(const CpuOptions& options, size_t read_bytes, int passes) {
  if (passes < 1) fail(code::argument, "passes: expected 1 or more, found ", passes);
  if (read_bytes < 2 * kReadPiece) {
    fail(code::argument, "bytes to read: expected ", 2 * kReadPiece, " or more, found ", read_bytes);
  }
  const cpu::Level& level = cpu::choose_level(options.level);
  ThreadPool pool(options.threads);
  MachineRates rates;
  rates.level = level.name;
  rates.threads = pool.threads();
  const Scheduled before = scheduled();
  rates.read = read_rate(pool, level, read_bytes, passes);
  rates.fma = loop_rate(pool, level.peaks.fma, passes);
  const auto measure = [&](cpu::PeakLoop loop) {
    return loop ? std::optional(loop_rate(pool, loop, passes)) : std::nullopt;
  };
  rates.dot = measure(level.peaks.dot);
  rates.tile_int8 = measure(level.peaks.tile_int8);
  rates.tile_bf16 = measure(level.peaks.tile_bf16);
  const Scheduled after = scheduled();
  const double on = after.on - before.on, waited = after.waited - before.waited;
  if (on + waited > 0) rates.waited_share = waited / (on + waited);
  return rates;
}

}  // namespace minigpt4
