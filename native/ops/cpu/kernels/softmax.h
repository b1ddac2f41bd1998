// The softmax of one row of scores, numerator only.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// scores[0..n) become exp(score - largest), what follows up to a multiple of 16 becomes zero; returns their sum. The
/// sum goes by lane (position mod 16) and a tree: it depends on the row alone.
inline float softmax_row(float* scores, int n) {
  F most[kParts];
  const F least = set1(-__builtin_inff());
  for (int p = 0; p < kParts; ++p) most[p] = least;
  for (int i = 0; i < n; i += 16) {
    for (int p = 0; p < kParts; ++p) {
      const int at = i + p * kLanes, used = lanes_left(n, at);
      if (used < kLanes) {  // what lies beyond the row is anything
        for (int j = used; j < kLanes; ++j) scores[at + j] = -__builtin_inff();
      }
      most[p] = max_of(most[p], load(scores + at));
    }
  }
  float largest = max_lane(most[0]);
  for (int p = 1; p < kParts; ++p) {
    const float other = max_lane(most[p]);
    largest = other > largest ? other : largest;
  }
  const F shift = set1(largest);
  return sum_row(n, [&](int64_t i, int, F sum) {
    const F e = exp_of(sub(load(scores + i), shift));
    store(scores + i, e);
    return add(sum, e);
  });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
