// How blocks find their work in a ragged batch: the host knows how many rows and sequences there are at most, the device
// knows where each sequence begins. A grid has as many blocks as there could be tiles; each looks up its own.
#pragma once

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

/// Tile number `tile` of a sequence; sequence -1: there are fewer tiles than that.
struct RaggedTile {
  int sequence = -1, tile = 0;
};

/// Tile `index` of all, where sequence b has tiles_of(b) of them. All lanes of a warp call it with the same index, a lane
/// counts a sequence.
template <class TilesOf>
__device__ inline RaggedTile find_tile(int sequences, int index, TilesOf tiles_of) {
  constexpr unsigned all = 0xffffffffu;
  const int lane = int(threadIdx.x % 32);
  int before = 0;
  for (int base = 0; base < sequences; base += 32) {
    const int own = base + lane < sequences ? tiles_of(base + lane) : 0;
    int sum = own;  // of this lane and those before it
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(all, sum, unsigned(step));
      if (lane >= step) sum += other;
    }
    const unsigned behind = __ballot_sync(all, index < before + sum);
    if (behind != 0) {
      const int first = __ffs(int(behind)) - 1;
      return {base + first, index - before - __shfl_sync(all, sum - own, first)};
    }
    before += __shfl_sync(all, sum, 31);
  }
  return {};
}

/// Rows of sequence b.
__device__ inline int rows_of(const int32_t* offsets, int b) { return offsets[b + 1] - offsets[b]; }

}  // namespace minigpt4::cuda
