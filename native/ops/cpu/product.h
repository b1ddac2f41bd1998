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

/// Pieces [0, count) in one run a thread, which a thread goes through in order, as its memory lies, before it helps another.
/// It helps from the other's end, so that the other goes on in order.
class Runs {
 public:
  explicit Runs(int threads) : runs_(size_t(threads)) {}
  /// Before a loop, and while none goes on; count < 2^32.
  void start(int64_t count) {
    const auto threads = int64_t(runs_.size());
    for (int64_t t = 0; t < threads; ++t) {
      runs_[size_t(t)].left.store(Left{uint32_t(count * t / threads), uint32_t(count * (t + 1) / threads)},
                                  std::memory_order_relaxed);
    }
  }
  /// A piece that nobody has had. To be called `count` times in all: then there is one for every call.
  int64_t take(int thread) {
    for (size_t i = 0;; ++i) {
      std::atomic<Left>& run = runs_[(size_t(thread) + i) % runs_.size()].left;
      Left left = run.load(std::memory_order_relaxed);
      while (left.next < left.end) {
        const bool own = i == 0;
        const Left rest = own ? Left{left.next + 1, left.end} : Left{left.next, left.end - 1};
        if (run.compare_exchange_weak(left, rest, std::memory_order_relaxed)) return own ? left.next : rest.end;
      }
    }
  }

 private:
  struct alignas(8) Left {
    uint32_t next = 0, end = 0;
  };
  struct alignas(64) Run {
    std::atomic<Left> left{Left{}};
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
