// How products with weights are cut among threads: shared by products and their gradients.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "ops/cpu/levels/level.h"

namespace minigpt4::cpu {

/// How a product is cut: into pieces of at most `groups` groups and `tiles` tiles.
struct Cut {
  int64_t groups, group_pieces;
  int tiles, tile_pieces;
  int64_t pieces() const { return group_pieces * tile_pieces; }
};

inline Cut cut_product(int64_t groups, int tiles, int64_t products_a_group, int threads, int64_t most_groups) {
  constexpr int64_t worth_a_piece = 1 << 17;  // multiply-adds, some microseconds
  const int64_t wanted = int64_t(threads) * 4;
  const int64_t least = (worth_a_piece + products_a_group - 1) / products_a_group;
  Cut cut{std::min(groups, std::max(least, std::clamp<int64_t>(groups / wanted, 1, most_groups))), 0, tiles, 1};
  cut.group_pieces = (groups + cut.groups - 1) / cut.groups;
  // as many for each thread, where there are few: pieces are of one size but for a group
  cut.group_pieces = std::min(groups, (cut.group_pieces + threads - 1) / threads * threads);
  if (threads > 1 && cut.group_pieces < wanted && least <= 1 && tiles > 1) {  // few outputs, many rows
    const int parts = int(std::min<int64_t>(tiles, (wanted + cut.group_pieces - 1) / cut.group_pieces));
    cut.tiles = (tiles + parts - 1) / parts;
    cut.tile_pieces = (tiles + cut.tiles - 1) / cut.tiles;
  }
  return cut;
}

/// Groups [g0, g1) times tiles [i0, i1).
struct Piece {
  int64_t g0, g1;
  int i0, i1;
};

inline Piece piece_at(const Cut& cut, int64_t groups, int tiles, int64_t piece) {
  const int64_t p = piece / cut.tile_pieces;
  const int i = int(piece % cut.tile_pieces) * cut.tiles;
  return {p * groups / cut.group_pieces, (p + 1) * groups / cut.group_pieces, i, std::min(i + cut.tiles, tiles)};
}

/// Pieces [0, count) in one run a thread, which a thread goes through in order before it helps with another's: what the
/// kernels ask for ahead is then what the same core uses next.
class Runs {
 public:
  Runs(int64_t count, int threads) : runs_(size_t(threads)) {
    for (int t = 0; t < threads; ++t) {
      runs_[size_t(t)].next.store(count * t / threads, std::memory_order_relaxed);
      runs_[size_t(t)].end = count * (t + 1) / threads;
    }
  }
  /// A piece that nobody has had. To be called `count` times in all: then there is one for every call.
  int64_t take(int thread) {
    for (size_t i = size_t(thread);; ++i) {
      Run& run = runs_[i % runs_.size()];
      if (run.next.load(std::memory_order_relaxed) >= run.end) continue;
      const int64_t piece = run.next.fetch_add(1, std::memory_order_relaxed);
      if (piece < run.end) return piece;
    }
  }

 private:
  struct alignas(64) Run {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  std::vector<Run> runs_;
};

/// body(piece, thread) for every piece.
template <class Body>
void each_piece(ThreadPool& threads, const Cut& cut, int64_t groups, int tiles, Body&& body) {
  threads.parallel_for(cut.pieces(), 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) body(piece_at(cut, groups, tiles, piece), thread);
  });
}

}  // namespace minigpt4::cpu
