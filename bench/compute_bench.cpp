// Measures how many float32 multiply-adds this machine's threads do together, the bound of training and of reading prompts: each
// works on registers alone, with the widest vectors of the machine it is compiled on. Needs nothing of the project:
// `c++ -std=c++20 -O3 -march=native -pthread compute_bench.cpp`.
//
//   compute_bench THREADS      prints one JSON object; rates in TFLOP/s (1e12, a multiply-add counts as two) of single passes
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vector __attribute__((vector_size(kLanes * 4)));

// Chains side by side: two units with a latency of four or five cycles need ten, sixteen registers hold twelve and the factors.
constexpr int kChains = 12;
constexpr int kRounds = 4000000;
constexpr int kPasses = 9;

/// Values stay near 1 / (1 - factor), far from numbers that are slow.
float multiply_adds(float factor, float addend) {
  Vector sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = Vector{} + float(i);
  const Vector a = Vector{} + factor, b = Vector{} + addend;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * a + b;
  }
  float all = 0;
  for (const Vector& sum : sums) {
    for (int lane = 0; lane < kLanes; ++lane) all += sum[lane];
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: compute_bench THREADS, found %d threads\n", threads);
    return 2;
  }
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> ends;
  ends.reserve(kPasses + 1);
  std::barrier meet(threads, [&]() noexcept { ends.push_back(Clock::now()); });
  std::vector<float> sums(size_t(threads) * 16);  // a cache line each
  const float factor = 0.5f + 0.001f * float(argc);
  const auto work = [&](int thread) {
    meet.arrive_and_wait();
    for (int pass = 0; pass < kPasses; ++pass) {
      sums[size_t(thread) * 16] += multiply_adds(factor, float(pass));
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
    rates.push_back(2.0 * kLanes * kChains * kRounds * threads / seconds / 1e12);
  }
  std::sort(rates.begin(), rates.end());
  float check = 0;  // printed, so that the sums are not left out
  for (const float value : sums) check += value;
  std::printf("{\"threads\": %d, \"lanes\": %d, \"passes\": %d, \"median\": %.4f, \"best\": %.4f, \"check\": \"%g\"}\n",
              threads, kLanes, kPasses, rates[kPasses / 2], rates.back(), double(check));
  return 0;
}
