// Sums go over eight lanes that are added at the end: a fixed order that the compiler may still turn into vector code.
#include "core/quant_search.h"

#include <cmath>

namespace minigpt4 {

namespace {

constexpr int kLanes = 8;
// Eighths of a level by which a candidate's scale is finer or coarser than the one that just covers the range. Finer
// cuts the extreme value off a little and brings the others nearer; coarser may meet more values exactly.
constexpr int kFirstStep = -8, kLastStep = 8;
constexpr float kStep = 0.125f;
// Below this the least scale that a half can hold is too coarse anyway, and inverses would overflow.
constexpr float kNothing = 1e-20f;

float sum(const float* lanes) noexcept {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

float fit_signed(const float* x, int n, int levels) noexcept {
  float extreme = 0;  // the value of largest magnitude, with its sign
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (std::fabs(extreme) < kNothing) return 0;
  const float low = float(-levels), high = float(levels - 1);
  float best_scale = extreme / low, best_gain = 0;
  for (int step = kFirstStep; step <= kLastStep; ++step) {
    const float inverse = (low - kStep * float(step)) / extreme;
    float product[kLanes] = {}, square[kLanes] = {};
    for (int i = 0; i < n; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const float q = level_of(x[i + l], inverse, low, high);
        product[l] += q * x[i + l];
        square[l] += q * q;
      }
    }
    // The best scale for these levels is xq / qq, and it takes xq^2 / qq off the error of all zeros.
    const float xq = sum(product), qq = sum(square);
    if (qq > 0 && xq * xq > best_gain * qq) {
      best_gain = xq * xq / qq;
      best_scale = xq / qq;
    }
  }
  return best_scale;
}

Affine fit_affine(const float* x, int n, int levels, bool low_at_most_zero) noexcept {
  float least = x[0], most = x[0];
  for (int i = 1; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  if (low_at_most_zero && least > 0) least = 0;
  if (!(most - least >= kNothing)) return {0, least};
  const float high = float(levels - 1);
  Affine best{(most - least) / high, least};
  // Values are taken from `least` up, so that a large common part does not drown the differences.
  float lanes_x[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes_x[l] += x[i + l] - least;
  }
  const float sx = sum(lanes_x), count = float(n);
  float best_gain = -INFINITY;
  for (int step = kFirstStep; step <= kLastStep; ++step) {
    const float inverse = (high + kStep * float(step)) / (most - least);
    float lanes_q[kLanes] = {}, lanes_qq[kLanes] = {}, lanes_xq[kLanes] = {};
    for (int i = 0; i < n; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const float above = x[i + l] - least, q = level_of(above, inverse, 0, high);
        lanes_q[l] += q;
        lanes_qq[l] += q * q;
        lanes_xq[l] += q * above;
      }
    }
    const float sq = sum(lanes_q), sqq = sum(lanes_qq), sxq = sum(lanes_xq);
    const float determinant = count * sqq - sq * sq;
    if (!(determinant > 0)) continue;
    // The normal equations of scale and low for these levels.
    float scale = (count * sxq - sx * sq) / determinant;
    float low = (sqq * sx - sq * sxq) / determinant;  // above `least`
    if (low_at_most_zero && low > -least) {
      low = -least;
      scale = (sxq - low * sq) / sqq;
    }
    // What they take off the error of all `least`.
    const float gain = scale * (2 * sxq - scale * sqq) + low * (2 * sx - 2 * scale * sq - low * count);
    if (scale > 0 && gain > best_gain) {
      best_gain = gain;
      best = {scale, low + least};
    }
  }
  return best;
}

}  // namespace minigpt4
