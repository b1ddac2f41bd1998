// One atomic word holds what is left of the running loop, so taking a piece is also joining the loop: the caller waits
// for pieces that were taken, never for a thread that the system has not run yet.
#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "core/error.h"

namespace minigpt4 {

namespace {

constexpr int kMostThreads = 1024;
// How long a thread looks for work before it sleeps. Longer than the gap between two loops of a decode step (a few
// microseconds), shorter than what a neighbour on the same core would notice.
constexpr std::chrono::microseconds kSpin{40};

void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Looks at ready() for kSpin; true as soon as it is.
template <class Ready>
bool spin(Ready&& ready) noexcept {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

/// Whole cores that a container's time limit amounts to; kMostThreads without one. More threads than that would be
/// stopped together for most of each period.
int cores_of_quota() {
  double quota = 0, period = 0;  // microseconds; without a limit the first word is "max"
  std::ifstream limit("/sys/fs/cgroup/cpu.max");
  if (!(limit >> quota >> period) || quota <= 0 || period <= 0) return kMostThreads;
  return int(std::clamp(quota / period, 1.0, double(kMostThreads)));
}

int cores_of_this_process() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::clamp(CPU_COUNT(&set), 1, cores_of_quota());
#endif
  return int(std::clamp(std::thread::hardware_concurrency(), 1u, unsigned(kMostThreads)));
}

}  // namespace

struct ThreadPool::State {
  using Body = std::function<void(int64_t, int64_t, int)>;

  // The running loop. Written by the caller while `left` is 0; read only after a piece was taken, which keeps it as is.
  const Body* body = nullptr;
  int64_t count = 0, grain = 1, pieces = 0;

  alignas(64) std::atomic<int64_t> left{0};      // pieces nobody has taken
  alignas(64) std::atomic<int64_t> finished{0};  // pieces done
  alignas(64) std::atomic<int> sleepers{0};      // workers that wait for `work`
  std::atomic<bool> caller_sleeps{false}, stop{false}, busy{false};
  std::exception_ptr error;  // the first of this loop, under mutex
  std::mutex mutex;
  std::condition_variable work, done;
  std::vector<std::thread> workers;

  /// Takes pieces until none is left; true if there was one.
  bool run(int thread) {
    int64_t mine = 0;
    int64_t seen = left.load();
    while (seen > 0) {
      if (!left.compare_exchange_weak(seen, seen - 1)) continue;
      ++mine;
      const int64_t begin = (pieces - seen) * grain;
      try {
        (*body)(begin, begin + std::min(grain, count - begin), thread);
      } catch (...) {
        {
          const std::lock_guard lock(mutex);
          if (!error) error = std::current_exception();
        }
        mine += left.exchange(0);  // nobody shall start the rest
      }
      seen = left.load();
      // Reported at the end, in one addition: until then the loop cannot end, so its members stay as they are.
    }
    if (mine == 0) return false;
    const int64_t all = pieces;
    if (finished.fetch_add(mine) + mine == all && caller_sleeps.load()) {
      {
        const std::lock_guard lock(mutex);
      }  // the caller is not between looking and sleeping
      done.notify_one();
    }
    return true;
  }

  void work_until_stopped(int thread) {
    while (!stop.load()) {
      if (run(thread)) continue;
      if (spin([&] { return left.load(std::memory_order_relaxed) > 0 || stop.load(std::memory_order_relaxed); }))
        continue;
      std::unique_lock lock(mutex);
      // Sequentially consistent on both sides: either the caller sees this sleeper, or this thread sees the pieces.
      sleepers.fetch_add(1);
      work.wait(lock, [&] { return left.load() > 0 || stop.load(); });
      sleepers.fetch_sub(1);
    }
  }

  /// The loop that the members describe.
  void loop() {
    finished.store(0);
    left.store(pieces);
    if (sleepers.load() > 0) {
      {
        const std::lock_guard lock(mutex);
      }  // no worker is between looking and sleeping
      if (pieces - 1 < int64_t(workers.size())) {
        for (int64_t i = 1; i < pieces; ++i) work.notify_one();
      } else {
        work.notify_all();
      }
    }
    run(0);
    const auto all_done = [&] { return finished.load() == pieces; };
    if (spin(all_done)) return;
    std::unique_lock lock(mutex);
    caller_sleeps.store(true);
    done.wait(lock, all_done);
    caller_sleeps.store(false);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 0 || threads > kMostThreads) {
    fail(code::argument, "a number of threads is expected from 0 (one per core) to ", kMostThreads, ", found ",
         threads);
  }
  if (threads == 0) threads = cores_of_this_process();
  State* state = state_.get();
  try {
    for (int i = 1; i < threads; ++i) state->workers.emplace_back([state, i] { state->work_until_stopped(i); });
  } catch (const std::system_error&) {
    // The system has no more threads to give: those that started do the work.
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop.store(true);
    state_->work.notify_all();
  }
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const noexcept { return int(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body) {
  if (grain < 1) fail(code::argument, "parallel_for expects pieces of at least 1, found ", grain);
  if (count <= 0) return;
  State& state = *state_;
  if (state.busy.exchange(true))
    fail(code::internal, "parallel_for was called while another loop of the same pool runs");
  struct Idle {
    std::atomic<bool>& busy;
    ~Idle() { busy.store(false); }
  } idle{state.busy};
  if (count <= grain || state.workers.empty()) {
    for (int64_t begin = 0; begin < count; begin += grain) body(begin, begin + std::min(grain, count - begin), 0);
    return;
  }
  state.body = &body;
  state.count = count;
  state.grain = grain;
  state.pieces = (count - 1) / grain + 1;
  state.error = nullptr;
  state.loop();
  if (state.error) std::rethrow_exception(std::exchange(state.error, nullptr));
}

}  // namespace minigpt4
