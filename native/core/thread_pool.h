// A few threads that share work in small pieces, so that a busy neighbour costs its share and no more.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace minigpt4 {

class ThreadPool {
 public:
  /// `threads` counts the calling thread; 0: one per core this process may run on (affinity and a container's limit
  /// counted). Error ERR_ARGUMENT if negative or above 1024. A system that gives no more threads leaves fewer.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept;
  /// Calls body(begin, end, thread) over [0, count) in pieces of at most `grain`, taken by whoever is free; the caller
  /// works too; returns when all is done. thread < threads() and is never used by two callers at once, so it may index
  /// scratch. Which thread takes which piece is not fixed: a body's result must not depend on it. Threads spin
  /// briefly for more work, then sleep. The first exception of a body is rethrown here after all have stopped.
  /// Not reentrant; one caller at a time (a second one gets ERR_INTERNAL). Error ERR_ARGUMENT if grain < 1.
  void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace minigpt4
