// The softmax of a row as wide as a vocabulary.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// The sum goes by stretches of 256 values, each by lane and a tree in float32, and over the stretches in double: its
/// error is that of a short sum however long the row.
SoftmaxSum softmax(float* p, const float* x, int64_t n) {
  constexpr int64_t stretch = 256;
  F most[kParts];
  for (int i = 0; i < kParts; ++i) most[i] = set1(-__builtin_inff());
  for (int64_t i = 0; i < n; i += 16) {
    for (int part = 0; part < kParts; ++part) {
      const int64_t at = i + part * kLanes;
      const int used = lanes_left(n, at);
      if (used == kLanes) {
        most[part] = max_of(most[part], load(x + at));
      } else {
        for (int j = 0; j < used; ++j) most[part] = max_of(most[part], set1(x[at + j]));
      }
    }
  }
  float largest = max_lane(most[0]);
  for (int i = 1; i < kParts; ++i) {
    const float other = max_lane(most[i]);
    largest = other > largest ? other : largest;
  }
  const F shift = set1(largest);
  double sum = 0;
  for (int64_t from = 0; from < n; from += stretch) {
    const float* in = x + from;
    float* out = p ? p + from : nullptr;
    sum += double(sum_row(n - from < stretch ? n - from : stretch, [&](int64_t i, int used, F so_far) {
      F e = exp_of(sub(load_part(in + i, used), shift));
      if (out) store_part(out + i, e, used);
      if (used < kLanes) {  // lanes beyond the row are no part of the sum
        float part[kLanes];
        store(part, e);
        e = load_n(part, used);
      }
      return add(so_far, e);
    }));
  }
  if (p) {
    const F inverse = set1(float(1.0 / sum));
    each_vector(n, [&](int64_t i, int used) { store_part(p + i, mul(load_part(p + i, used), inverse), used); });
  }
  return {largest, sum};
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
