// What rounding 32 values to 8 bits begins with, of activations and of cached keys and values alike.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

struct BlockRange {
  /// The largest absolute value.
  float most;
  /// 0, or NaN if a value is NaN or infinite: added to a scale, so that such a block does not look harmless.
  float poison;
};

inline BlockRange range_of(const float* x) {
  F most = zero(), poison = zero();
#pragma GCC unroll 4
  for (int i = 0; i < 32; i += kLanes) {
    const F v = load(x + i);
    most = max_of(most, abs_of(v));
    poison = fma(v, zero(), poison);
  }
  F lanes[kParts];
  for (int p = 0; p < kParts; ++p) lanes[p] = p == 0 ? poison : zero();
  return {max_lane(most), sum16(lanes)};
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
