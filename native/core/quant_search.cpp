// Sums go over four lanes that are added at the end, in a vector type of g++ and clang that every machine's registers
// hold: a fixed order of additions, so the same blocks everywhere.
#include "core/quant_search.h"

#include <cmath>
#include <cstring>

namespace minigpt4 {

namespace {

typedef float Lanes __attribute__((vector_size(16)));
constexpr int kLanes = 4;
// Eighths of a level by which a candidate's scale is finer or coarser than the one that just covers the range. Finer
// cuts the extreme value off a little and brings the others nearer; coarser may meet more values exactly.
constexpr int kFirstStep = -8, kLastStep = 8;
constexpr float kStep = 0.125f;
// Below this the least scale that a half can hold is too coarse anyway, and inverses would overflow.
constexpr float kNothing = 1e-20f;

Lanes load(const float* x) noexcept {
  Lanes lanes;
  std::memcpy(&lanes, x, sizeof lanes);
  return lanes;
}
float sum(Lanes lanes) noexcept { return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]); }

/// level_of, four at a time.
Lanes levels_of(Lanes x, float inverse, float low, float high) noexcept {
  const Lanes lows = Lanes{} + low, highs = Lanes{} + high, shift = Lanes{} + kRoundingShift;
  x = x * inverse;
  x = x > lows ? x : lows;
  x = x < highs ? x : highs;
  return (x + shift) - shift;
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
    Lanes product{}, square{};
    for (int i = 0; i < n; i += kLanes) {
      const Lanes value = load(x + i), q = levels_of(value, inverse, low, high);
      product += q * value;
      square += q * q;
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
  float least = x[0], most = x[0], sx = 0;
  for (int i = 0; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  if (low_at_most_zero && least > 0) least = 0;
  if (!(most - least >= kNothing)) return {0, least};
  // Values are taken from `least` up, so that a large common part does not drown the differences.
  for (int i = 0; i < n; ++i) sx += x[i] - least;
  const float high = float(levels - 1), count = float(n);
  Affine best{(most - least) / high, least};
  float best_gain = -INFINITY;
  for (int step = kFirstStep; step <= kLastStep; ++step) {
    const float inverse = (high + kStep * float(step)) / (most - least);
    Lanes level{}, square{}, product{};
    for (int i = 0; i < n; i += kLanes) {
      const Lanes above = load(x + i) - least, q = levels_of(above, inverse, 0, high);
      level += q;
      square += q * q;
      product += q * above;
    }
    const float sq = sum(level), sqq = sum(square), sxq = sum(product);
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
