// The shadow of one word of memory: who touched it last, and whether a new access is ordered after that. All checks of
// races come down to Cell::touch().
#pragma once

#include <cstdint>

namespace minigpt4::simt {

/// Kinds of an access.
enum : uint8_t { kind_read = 1, kind_write = 2, kind_atomic = 4 };

/// The order of one warp's lanes among themselves, made by __syncwarp() alone: shuffles and matrix instructions do not
/// order memory.
class WarpOrder {
 public:
  void reset() { clock_ = all_ = 0, some_ = false; }
  /// The lanes of `mask` met at a __syncwarp(); `present` are the lanes the warp has.
  void synced(uint32_t mask, uint32_t present);
  uint32_t clock() const { return clock_; }
  /// The clock of the last __syncwarp() both lanes took part in.
  uint32_t met(unsigned a, unsigned b) const {
    if (!some_) return all_;
    return pairs_[a][b] > all_ ? pairs_[a][b] : all_;
  }

 private:
  uint32_t clock_ = 0;  // __syncwarp() calls of this warp in this block
  uint32_t all_ = 0;    // clock of the last one with every lane
  bool some_ = false;   // a partial mask was used: pairs_ holds
  uint32_t pairs_[32][32];
};

/// The thread that makes an access, at the moment it does.
struct Actor {
  uint32_t epoch;         // counts blocks and __syncthreads() over the whole run
  uint32_t block_epoch;   // epoch at which this block began
  uint32_t launch_epoch;  // epoch at which this launch began
  uint16_t thread;        // linear index in the block
  const WarpOrder* warp;
};

/// Who touched a word, when and where.
struct Mark {
  uint32_t epoch = 0;
  uint32_t warp_clock = 0;
  uint32_t site = 0;
  uint16_t thread = 0;
  uint8_t kind = 0;  // 0: nobody
};

inline Mark mark_of(const Actor& actor, uint8_t kind, uint32_t site) {
  return {actor.epoch, actor.warp->clock(), site, actor.thread, kind};
}

/// Whether an access by the actor is ordered after one that left this mark.
inline bool ordered(const Mark& mark, const Actor& actor) {
  if (mark.epoch < actor.block_epoch) return false;  // another block of this launch
  if (mark.epoch < actor.epoch || mark.thread == actor.thread) return true;
  if (mark.thread / 32 != actor.thread / 32) return false;
  return actor.warp->met(mark.thread % 32, actor.thread % 32) > mark.warp_clock;
}

/// The last two accesses of a kind by different threads (of different warps or blocks where there were such). Two are
/// enough: whoever comes next in the same epoch is unordered with one of two different warps, and within one warp the later
/// of two different threads decides.
struct LastTwo {
  Mark last, before;

  void add(const Actor& actor, const Mark& now, uint32_t horizon) {
    if (last.kind == 0 || last.epoch < horizon) {
      before.kind = 0;
    } else if (last.epoch < actor.block_epoch) {  // another block's: no access of this block can be ordered with it
      before = last;
    } else if (last.thread != now.thread) {
      const bool farther =
          before.kind && before.epoch >= horizon &&
          (before.epoch < actor.block_epoch || (before.epoch == actor.epoch && before.thread / 32 != now.thread / 32));
      if (!farther) before = last;
    }
    last = now;
  }
};

/// What is known of one word or byte.
struct Cell {
  Mark write;
  LastTwo reads, atomics;

  /// Notes the access `now` and returns a mark it is unordered with, or one of kind 0. Marks older than `horizon` (the
  /// launch for global memory, the block for shared) do not count.
  Mark touch(const Actor& actor, const Mark& now, uint32_t horizon) {
    const auto races = [&](const Mark& mark) { return mark.kind && mark.epoch >= horizon && !ordered(mark, actor); };
    const Mark* found = races(write) ? &write : nullptr;
    if (now.kind != kind_atomic && atomics.last.kind && !found) {
      found = races(atomics.last) ? &atomics.last : races(atomics.before) ? &atomics.before : nullptr;
    }
    if (now.kind != kind_read && reads.last.kind && !found) {
      found = races(reads.last) ? &reads.last : races(reads.before) ? &reads.before : nullptr;
    }
    const Mark other = found ? *found : Mark();
    if (now.kind == kind_read) {
      reads.add(actor, now, horizon);
    } else if (now.kind == kind_atomic) {
      atomics.add(actor, now, horizon);
    } else {  // who is ordered after this write is ordered after what came before it
      write = now;
      reads.last.kind = reads.before.kind = atomics.last.kind = atomics.before.kind = 0;
    }
    return other;
  }
};

}  // namespace minigpt4::simt
