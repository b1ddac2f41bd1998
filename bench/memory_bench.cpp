// Measures how fast this machine's threads together read memory, the bound of decoding: each sums its own part of a
// buffer far beyond the caches. Needs nothing of the project: `c++ -std=c++20 -O3 -march=native -pthread memory_bench.cpp`.
//
//   memory_bench THREADS [MIB]      prints one JSON object; rates in GB/s (1e9 bytes) of single passes
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

/// Several sums side by side, so that no addition waits for the one before it.
uint64_t sum(const uint64_t* values, size_t count) {
  uint64_t lanes[32] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (size_t j = 0; j < 32; ++j) lanes[j] += values[i + j];
  }
  uint64_t all = 0;
  for (const uint64_t lane : lanes) all += lane;
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int mib = argc > 2 ? std::atoi(argv[2]) : 1024;
  if (threads < 1 || threads > 1024 || mib < 1) {
    std::fprintf(stderr, "usage: memory_bench THREADS [MIB], found %d threads and %d MiB\n", threads, mib);
    return 2;
  }
  constexpr int kPasses = 15;
  const size_t count = size_t(mib) << 17;  // values of 8 bytes
  const size_t part = count / size_t(threads) & ~size_t{31};
  std::vector<uint64_t> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = i;  // pages that were never written all show the same page of zeros

  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> ends;
  ends.reserve(kPasses + 1);
  std::barrier meet(threads, [&]() noexcept { ends.push_back(Clock::now()); });
  std::vector<uint64_t> sums(size_t(threads) * 8);  // a cache line each
  const auto work = [&](int thread) {
    meet.arrive_and_wait();
    for (int pass = 0; pass < kPasses; ++pass) {
      sums[size_t(thread) * 8] += sum(values.data() + size_t(thread) * part, part);
      meet.arrive_and_wait();
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& other : others) other.join();

  std::vector<double> rates;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double seconds = std::chrono::duration<double>(ends[size_t(pass) + 1] - ends[size_t(pass)]).count();
    rates.push_back(double(part) * threads * sizeof(uint64_t) / seconds / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  uint64_t check = 0;  // printed, so that the sums are not left out
  for (const uint64_t value : sums) check += value;
  std::printf("{\"threads\": %d, \"mib\": %d, \"passes\": %d, \"median\": %.2f, \"best\": %.2f, \"check\": \"%llx\"}\n", threads,
              mib, kPasses, rates[kPasses / 2], rates.back(), static_cast<unsigned long long>(check));
  return 0;
}
