// Gradients of the ops that work row by row or value by value.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// With g = dy · weight and i = 1 / √(mean(x²) + eps): dx = i · g - x · i³ · mean(g · x).
void rms_norm_dx(float* dx, const float* dy, const float* x, const float* weight, int C, float eps, bool accumulate) {
  const float squares = sum_row(C, [&](int64_t i, int used, F sum) {
    const F v = load_part(x + i, used);
    return fma(v, v, sum);
  });
  const float product = sum_row(C, [&](int64_t i, int used, F sum) {
    return fma(mul(load_part(dy + i, used), load_part(weight + i, used)), load_part(x + i, used), sum);
  });
  const float of_root = 1.0f / __builtin_sqrtf(squares / float(C) + eps);
  const F inverse = set1(of_root), back = set1(-(of_root * of_root * of_root * (product / float(C))));
  each_vector(C, [&](int64_t i, int used) {
    const F g = mul(load_part(dy + i, used), load_part(weight + i, used));
    F d = fma(load_part(x + i, used), back, mul(g, inverse));
    if (accumulate) d = add(load_part(dx + i, used), d);
    store_part(dx + i, d, used);
  });
}

/// With s = sigmoid(gate): dup = dy · gate · s, dgate = dy · up · s · (1 + gate · (1 - s)).
void silu_mul_dx(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) {
  const F one = set1(1.0f);
  each_vector(n, [&](int64_t i, int used) {
    const F d = load_part(dy + i, used), x = load_part(gate + i, used), u = load_part(up + i, used);
    const F e = exp_of(sub(zero(), x));
    const F s = div(one, add(one, e));
    const F slope = mul(s, fma(x, mul(e, s), one));  // 1 - s is e · s, without cancellation
    store_part(dup + i, mul(d, mul(x, s)), used);
    store_part(dgate + i, mul(mul(d, u), slope), used);
  });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
