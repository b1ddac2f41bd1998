// LayerNorm and RMSNorm of one row: sums in 16 lanes and a tree, the variance in a second pass.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

void layer_norm(float* y, const float* x, const float* weight, const float* bias, int C, float eps) {
  const float mean =
      sum_row(C, [&](int64_t i, int used, F sum) { return add(sum, load_part(x + i, used)); }) / float(C);
  const F m = set1(mean);
  const float squares = sum_row(C, [&](int64_t i, int used, F sum) {
    if (used == kLanes) {
      const F d = sub(load(x + i), m);
      return fma(d, d, sum);
    }
    // Lanes beyond the row hold zero, not the mean: their difference must not count.
    float part[kLanes] = {};
    store(part, sub(load_n(x + i, used), m));
    const F d = load_n(part, used);
    return fma(d, d, sum);
  });
  const F inverse = set1(1.0f / __builtin_sqrtf(squares / float(C) + eps));
  each_vector(C, [&](int64_t i, int used) {
    const F normal = mul(sub(load_part(x + i, used), m), inverse);
    store_part(y + i, fma(normal, load_part(weight + i, used), load_part(bias + i, used)), used);
  });
}

void rms_norm(float* y, const float* x, const float* weight, int C, float eps) {
  const float squares = sum_row(C, [&](int64_t i, int used, F sum) {
    const F v = load_part(x + i, used);
    return fma(v, v, sum);
  });
  const F inverse = set1(1.0f / __builtin_sqrtf(squares / float(C) + eps));
  each_vector(C, [&](int64_t i, int used) {
    store_part(y + i, mul(mul(load_part(x + i, used), inverse), load_part(weight + i, used)), used);
  });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
