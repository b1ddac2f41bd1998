// Finds the scale (and minimum) that lets a few integer levels stand for a few floats with the least squared error. A
// grid of scales is tried; for each the values are rounded to levels, and for those levels the best scale follows from
// least squares. All values count alike: nothing is known of the inputs that the weights will meet.
#pragma once

namespace minigpt4 {

/// 1.5 * 2^23. Added and subtracted it rounds |x| < 2^22 to the nearest integer, as it leaves no bits for a fraction;
/// unlike a call of lrintf that is two additions on every machine, so loops over it become vector code.
inline constexpr float kRoundingShift = 12582912.f;
inline float rounded(float x) noexcept { return (x + kRoundingShift) - kRoundingShift; }
/// x within [low, high]; low for a NaN (0 times an inverse that overflowed), so that the result always fits an integer.
inline float clamped(float x, float low, float high) noexcept {
  x = x > low ? x : low;
  return x < high ? x : high;
}
/// The integer in [low, high] nearest to x * inverse.
inline float level_of(float x, float inverse, float low, float high) noexcept {
  return rounded(clamped(x * inverse, low, high));
}
/// 1 / scale; 0 for 0, which leaves every value at level 0.
inline float inverse_of(float scale) noexcept { return scale != 0 ? 1 / scale : 0; }

/// The scale so that x[i] is near scale * q[i], q[i] an integer in [-levels, levels - 1]. It may be negative, so that
/// the extra level serves the side that needs it. n is a multiple of 4, 256 at most. 0 if all x are.
float fit_signed(const float* x, int n, int levels) noexcept;

struct Affine {
  float scale, low;  // x[i] is near scale * q[i] + low, scale >= 0
};
/// q[i] an integer in [0, levels - 1]. With low_at_most_zero the low end is kept at or below 0, as the types need whose
/// minimum is subtracted and stored without a sign. n as above.
Affine fit_affine(const float* x, int n, int levels, bool low_at_most_zero) noexcept;

}  // namespace minigpt4
