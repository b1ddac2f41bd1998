// Which thread of a block runs next: the four orders of Options.
#pragma once

#include <cstdint>

#include "simt/context.h"
#include "simt/report.h"

namespace minigpt4::simt {

/// xorshift64*: quick, and the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed = 1) { restart(seed); }
  void restart(uint64_t seed) { state_ = seed * 0x9e3779b97f4a7c15u ^ 0xd1b54a32d192ed03u; }
  uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return uint32_t((state_ * 0x2545f4914f6cdd1du) >> 32);
  }
  /// In [0, n).
  uint32_t below(uint32_t n) { return uint32_t(uint64_t(next()) * n >> 32); }

 private:
  uint64_t state_;
};

/// Bit sets of the threads that can run; every operation takes constant time for a warp.
class Schedule {
 public:
  /// All threads of a block of so many can run.
  void begin_block(Order order, uint64_t seed, unsigned threads);
  void make_ready(unsigned warp, uint32_t lanes);
  /// After a barrier.
  void make_all_ready(unsigned threads);
  bool any() const { return queued_ != 0; }
  bool is_ready(unsigned thread) const { return ready_[thread / warp_lanes] >> thread % warp_lanes & 1; }
  /// Takes the next thread out of the set; any() must hold.
  unsigned choose();
  /// The same, in random order whatever the order is.
  unsigned choose_random();
  Random& random() { return random_; }

 private:
  unsigned take(unsigned place, unsigned lane);
  unsigned choose_by_priority();

  Order order_ = Order::fifo;
  Random random_;
  uint32_t ready_[block_warps_limit] = {};
  uint8_t queue_[block_warps_limit] = {};  // warps with ready lanes, the one that became ready first in front
  unsigned queued_ = 0;
  unsigned place_ = 0;  // in queue_: the warp that priority runs at the moment
  bool keep_ = false;   // whether place_ stands
  uint32_t priority_[block_warps_limit] = {};
  uint8_t first_lane_[block_warps_limit] = {};
};

}  // namespace minigpt4::simt
