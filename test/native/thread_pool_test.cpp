// Every index exactly once, with few and many threads, tiny and long loops, and bodies that throw.
#include "core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"

using namespace minigpt4;

TEST("thread pool: every index once, in pieces within the grain, by threads with numbers of their own") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK_EQUAL(pool.threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 100, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(size_t(count) + 1);
        std::vector<std::atomic<int>> inside(static_cast<size_t>(threads));
        std::atomic<int> wrong{0};
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int thread) {
          if (thread < 0 || thread >= threads || begin >= end || end - begin > grain || end > count) ++wrong;
          if (inside[size_t(thread)].fetch_add(1) != 0) ++wrong;
          for (int64_t i = begin; i < end; ++i) seen[size_t(i)].fetch_add(1);
          inside[size_t(thread)].fetch_sub(1);
        });
        for (int64_t i = 0; i < count; ++i) wrong += seen[size_t(i)].load() != 1;
        CHECK_EQUAL(wrong.load(), 0);
      }
    }
  }
}

TEST("thread pool: many short loops with pauses in which the threads fall asleep") {
  ThreadPool pool(4);
  std::atomic<int64_t> total{0};
  for (int loop = 0; loop < 2000; ++loop) {
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t, int) { total += begin; });
    if (loop % 100 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
  CHECK_EQUAL(total.load(), 2000 * 28);
}

TEST("thread pool: long pieces are shared") {
  ThreadPool pool(2);
  std::vector<std::atomic<int>> pieces(2);
  pool.parallel_for(20, 1, [&](int64_t, int64_t, int thread) {
    ++pieces[size_t(thread)];
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // gives the core away, so both run even on one
  });
  CHECK(pieces[0] > 0 && pieces[1] > 0);
  CHECK_EQUAL(pieces[0] + pieces[1], 20);
}

TEST("thread pool: the caller finishes alone while a worker is held up") {
  ThreadPool pool(2);
  // The first loop: the worker is kept in its piece until the caller has done all others.
  std::atomic<int> done{0};
  std::atomic<bool> worker_in{false};
  pool.parallel_for(50, 1, [&](int64_t, int64_t, int thread) {
    if (thread == 1) {
      worker_in = true;
      while (done.load() < 49) std::this_thread::yield();
    } else {
      // once the worker is in, all that is left is the caller's
      while (!worker_in.load()) std::this_thread::yield();
      ++done;
    }
  });
  CHECK_EQUAL(done.load(), 49);
}

TEST("thread pool: the first exception reaches the caller, and the pool still works") {
  ThreadPool pool(3);
  for (int i = 0; i < 50; ++i) {
    std::atomic<int> ran{0};
    // more pieces than the others could get through while the system lets the thread that throws wait
    constexpr int pieces = 1'000'000'000;
    CHECK_ERROR(code::shape, "piece 10", pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t, int) {
      ++ran;
      if (begin == 10) fail(code::shape, "piece 10");
    }));
    CHECK(ran.load() < pieces);  // the rest was not begun
    std::atomic<int64_t> total{0};
    pool.parallel_for(100, 7, [&](int64_t begin, int64_t end, int) { total += end - begin; });
    CHECK_EQUAL(total.load(), 100);
  }
}

TEST("thread pool: wrong use is an error") {
  CHECK_ERROR(code::argument, "found -1", ThreadPool(-1));
  CHECK_ERROR(code::argument, "found 100000", ThreadPool(100000));
  ThreadPool pool(2);
  CHECK_ERROR(code::argument, "found 0", pool.parallel_for(10, 0, [](int64_t, int64_t, int) {}));
  CHECK_ERROR(code::internal, "another loop", pool.parallel_for(10, 1, [&](int64_t, int64_t, int) {
    pool.parallel_for(10, 1, [](int64_t, int64_t, int) {});
  }));
  ThreadPool automatic;
  CHECK(automatic.threads() >= 1);
}
