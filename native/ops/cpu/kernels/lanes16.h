// Groups of 16 lanes out of a level's vectors, and loops over rows whose order of additions no level changes.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kParts = 16 / kLanes;  // vectors that make up 16 lanes

/// How many of the n values from i on lie in the vector that starts at i: 0 to kLanes.
inline int lanes_left(int64_t n, int64_t i) {
  const int64_t left = n - i;
  return left >= kLanes ? kLanes : left > 0 ? int(left) : 0;
}

/// body(i, vector's lanes in use, full) for each vector of a row of n.
template <class Body>
inline void each_vector(int64_t n, Body body) {
  for (int64_t i = 0; i < n; i += kLanes) body(i, lanes_left(n, i));
}

inline F load_part(const float* p, int n) { return n == kLanes ? load(p) : load_n(p, n); }
inline void store_part(float* p, F x, int n) { n == kLanes ? store(p, x) : store_n(p, x, n); }

/// A sum over a row: lane i sums what step makes of the values i, i + 16, …; then the 16 sums meet in a tree.
/// step(i, lanes in use, sum so far) gives the new sum; lanes beyond the row must add zero.
template <class Step>
inline float sum_row(int64_t n, Step step) {
  F sums[kParts];
  for (int p = 0; p < kParts; ++p) sums[p] = zero();
  for (int64_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) sums[p] = step(i + p * kLanes, lanes_left(n, i + p * kLanes), sums[p]);
  }
  return sum16(sums);
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
