// The emulator's inside: the one launch that runs at a time, its block, warps and threads. Included by the emulator's
// own sources alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt/context.h"
#include "simt/fiber.h"
#include "simt/report.h"
#include "simt/schedule.h"

namespace minigpt4::simt {

struct Thread {
  Context context;
  FiberState state;
  Stack* stack = nullptr;
};

/// Lanes of a warp that have come to a collective and wait for the rest of its mask.
struct Group {
  uint32_t mask = 0, arrived = 0;
  const char* operation = nullptr;
  Site site;
};

/// The operands of a warp's matrix product where its lanes put them: row after row.
struct alignas(64) MatrixOperands {
  union {
    uint16_t a16[16][16];
    int8_t a8[16][32];
  };
  union {
    uint16_t b16[16][8];  // [k][n]
    int8_t b8[8][32];     // [n][k]
  };
  union {
    float c[16][8];
    int32_t c32[16][8];
  };
};

struct Warp {
  uint32_t present = 0, fresh = 0, exited = 0;
  unsigned open = 0;
  Group groups[warp_lanes];
  uint64_t value[warp_lanes], result[warp_lanes];
  int32_t source[warp_lanes];
  const void* row[warp_lanes];
  uint32_t fragments[warp_lanes][4];  // of ldmatrix
  MatrixOperands matrix;
};

struct KernelCall;

class Execution {
 public:
  /// Runs all blocks, on the calling host thread. One at a time: the caller holds the lock. False when the launch was
  /// given up.
  bool run(const LaunchInfo& launch, const KernelCall& call, size_t shared_limit);

  // On a fiber:
  BlockInfo& block() { return block_; }
  Warp& warp() { return warps_[current->warp]; }
  size_t shared_limit() const { return shared_limit_; }
  /// Joins the group of this collective. True for the lane that completes it: it does the work, then calls release().
  /// The others return when that has happened.
  bool arrive(const char* operation, uint32_t mask, Site site);
  void release(uint32_t mask);
  void barrier(Site site);
  void preempt();
  [[noreturn]] void abandon();
  [[noreturn]] void fiber_main();

 private:
  bool run_block(uint64_t number);
  void begin_block(uint64_t number);
  void park();
  void thread_ends();
  void go_on_with(Thread& next, Thread& mine);
  void run_next();
  /// No thread can run, and not all have ended: says where they stand, and gives up.
  [[noreturn]] void stuck();
  std::string standing() const;
  void begin_thread(Thread& thread, Stack* stack);

  const LaunchInfo* launch_ = nullptr;
  const KernelCall* call_ = nullptr;
  Options options_;
  size_t shared_limit_ = 0;
  BlockInfo block_;
  Thread threads_[block_threads_limit];
  Warp warps_[block_warps_limit];
  Thread* active_ = nullptr;
  Schedule schedule_;
  FiberState host_;
  std::vector<Stack*> free_stacks_;
  unsigned ended_ = 0;
  unsigned at_barrier_ = 0;
  Site barrier_site_;
  bool abandoned_ = false;
};
/// The one there is.
Execution& execution();

/// While it lives, the emulator works for the running thread and no kernel code runs: `current` is null, so that a
/// checker does not take accesses for the kernel's where the linker has merged a library's template with a checked
/// file's. Around all that makes texts. report() names the thread all the same.
class OwnCode {
 public:
  OwnCode();
  ~OwnCode();
  OwnCode(const OwnCode&) = delete;
  OwnCode& operator=(const OwnCode&) = delete;
  /// The thread that runs, or for which the emulator works.
  static const Context* thread();
  /// For a thread that never comes back.
  static void end();
};

bool same_site(Site a, Site b);

// shared_memory.cpp
void begin_shared_memory(BlockInfo& block);
/// Looks whether the red zones are whole.
void check_shared_memory(const BlockInfo& block);

}  // namespace minigpt4::simt
