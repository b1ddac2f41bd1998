// The pieces of a product that each thread goes through in order.
#include <algorithm>
#include <atomic>
#include <vector>

#include "check.h"
#include "ops/cpu/product.h"

using namespace minigpt4;

TEST(
    "products: every piece of the threads' runs once, a thread's own first and in order, then others' from their "
    "ends") {
  for (const int threads : {1, 2, 3, 8}) {
    cpu::Runs runs(threads);
    for (const int64_t count : {0, 1, 2, 7, 100}) {
      const auto run_of = [&](int thread) {
        std::vector<int64_t> pieces;
        for (int64_t i = count * thread / threads; i < count * (thread + 1) / threads; ++i) pieces.push_back(i);
        return pieces;
      };
      for (int thread = 0; thread < threads; ++thread) {  // that does all
        std::vector<int64_t> expected = run_of(thread), taken;
        for (int other = 1; other < threads; ++other) {
          const std::vector<int64_t> run = run_of((thread + other) % threads);
          expected.insert(expected.end(), run.rbegin(), run.rend());
        }
        runs.start(count);
        for (int64_t i = 0; i < count; ++i) taken.push_back(runs.take(thread));
        CHECK(taken == expected);
      }
      ThreadPool pool(threads);
      runs.start(count);
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      pool.parallel_for(count, 1, [&](int64_t, int64_t, int thread) { ++seen[size_t(runs.take(thread))]; });
      CHECK(std::all_of(seen.begin(), seen.end(), [](const std::atomic<int>& times) { return times == 1; }));
    }
  }
}
