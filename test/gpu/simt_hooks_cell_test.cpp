// The marks that the checker keeps of a word, against the whole history of the word's accesses.
#include "../native/check.h"
#include "simt/shadow_cell.h"

using namespace minigpt4;

namespace {

struct Past {
  uint32_t block, epoch;
  uint16_t thread;
  uint8_t kind;
  uint32_t clock;
};

/// Random accesses of one word by the threads of two warps, over blocks, barriers and __syncwarp()s, up to the first race.
/// Gives the step at which a cell and one that forgets nothing find it; steps if never.
std::pair<int, int> first_races(uint64_t seed, bool atomics, int steps) {
  uint64_t state = seed;
  const auto below = [&](uint32_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return uint32_t((state >> 33) % bound);
  };
  simt::Cell cell;
  simt::WarpOrder warps[2];
  warps[0].reset();
  warps[1].reset();
  std::vector<Past> history;
  uint32_t epoch = 1, block = 0, block_epoch = 1;
  int by_cell = steps, by_history = steps;
  for (int step = 0; step < steps && by_cell == steps && by_history == steps; ++step) {
    const uint32_t event = below(20);
    if (event == 0 && below(3) == 0) {
      ++block;
      block_epoch = ++epoch;
      warps[0].reset();
      warps[1].reset();
    } else if (event < 4) {
      ++epoch;
    } else if (event < 7) {
      warps[below(2)].synced(~0u, ~0u);
    } else {
      const uint16_t thread = uint16_t(below(2) * 32 + below(3));
      const simt::WarpOrder& warp = warps[thread / 32];
      // many reads, or all runs end at once
      const uint8_t kind = below(8) == 0              ? simt::kind_write
                           : atomics && below(3) == 0 ? simt::kind_atomic
                                                      : simt::kind_read;
      const simt::Actor actor = {epoch, block_epoch, 1, thread, &warp};
      if (cell.touch(actor, simt::mark_of(actor, kind, 1), 1).kind) by_cell = step;
      for (const Past& past : history) {
        if (past.kind == kind && kind != simt::kind_write) continue;
        const bool ordered = past.block == block && (past.epoch < epoch || past.thread == thread ||
                                                     (past.thread / 32 == thread / 32 && past.clock < warp.clock()));
        if (!ordered) by_history = step;
      }
      history.push_back({block, epoch, thread, kind, warp.clock()});
    }
  }
  return {by_cell, by_history};
}

}  // namespace

TEST("simt hooks: a word's few marks find what the whole history would") {
  int races = 0;
  for (uint64_t seed = 1; seed <= 20000; ++seed) {
    const int steps = seed % 2 ? 12 : 60;
    for (const bool atomics : {false, true}) {
      const auto [by_cell, by_history] = first_races(seed, atomics, steps);
      if (by_cell != by_history) {
        check::failed(__FILE__, __LINE__,
                      "seed " + std::to_string(seed) + (atomics ? " with atomics" : "") +
                          ": the cell finds a race at step " + std::to_string(by_cell) + ", the history at " +
                          std::to_string(by_history));
      }
      races += by_history < steps;
    }
  }
  CHECK(races > 4000 && races < 39000);  // both endings are common
}
