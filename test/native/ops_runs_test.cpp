// The pieces of a product that each thread goes through in order.
#include <algorithm>
#include <atomic>
#include <vector>

#include "check.h"
#include "ops/cpu/product.h"

using namespace minigpt4;

TEST("products: every piece of the threads' runs once, a thread's own first and in order, whoever comes") {
  for (const int threads : {1, 2, 3, 8}) {
    for (const int64_t count : {0, 1, 2, 7, 100}) {
      const auto in_order = [&](int thread) {  // one thread does all
        cpu::Runs runs(count, threads);
        std::vector<int64_t> pieces;
        for (int64_t i = 0; i < count; ++i) pieces.push_back(runs.take(thread));
        return pieces;
      };
      for (int thread = 0; thread < threads; ++thread) {
        std::vector<int64_t> expected(static_cast<size_t>(count));
        for (int64_t i = 0; i < count; ++i) expected[size_t(i)] = (count * thread / threads + i) % count;
        CHECK(in_order(thread) == expected);
      }
      ThreadPool pool(threads);
      cpu::Runs runs(count, threads);
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      pool.parallel_for(count, 1, [&](int64_t, int64_t, int thread) { ++seen[size_t(runs.take(thread))]; });
      CHECK(std::all_of(seen.begin(), seen.end(), [](const std::atomic<int>& times) { return times == 1; }));
    }
  }
}
