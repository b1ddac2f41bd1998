// How the sum over a quantized product's inputs is cut: the same for one row and for a thousand, so that a row's bits do not
// depend on how many are computed with it. (Float weights: one chain, not cut; matmul_half_many.h says why.)
#pragma once

#include <cstdint>

namespace minigpt4::cuda {

/// A product's columns are summed in so many chunks; the chunks' sums are added in order, from the first on, then the bias,
/// then what was there (Accumulate::yes). 16: in decoding a warp takes a chunk, and 16 warps of 256 row tiles (a matrix of
/// 4096 rows) keep 64 KB of loads in flight on each of 132 multiprocessors.
inline constexpr int kChunks = 16;

/// Chunk c covers steps [chunk_begin(c, n), chunk_begin(c + 1, n)) of n.
constexpr int64_t chunk_begin(int c, int64_t steps) { return steps * c / kChunks; }

}  // namespace minigpt4::cuda
