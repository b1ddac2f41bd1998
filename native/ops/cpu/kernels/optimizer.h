// AdamW value by value, operation by operation as PyTorch has it (the first moment by linear interpolation).
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

void adamw(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, const AdamwStep& a) {
  each_vector(n, [&](int64_t i, int used) {
    const F g = mul(load_part(dw + i, used), set1(a.gradient_scale));
    F m = load_part(first_moment + i, used), v = load_part(second_moment + i, used);
    m = fma(set1(a.new1), sub(g, m), m);
    v = fma(mul(set1(a.new2), g), g, mul(v, set1(a.beta2)));
    store_part(first_moment + i, m, used);
    store_part(second_moment + i, v, used);
    const F root = add(div(sqrt_of(v), set1(a.root_correction)), set1(a.epsilon));
    const F kept = mul(load_part(w + i, used), set1(a.keep));
    store_part(w + i, add(kept, div(mul(set1(a.minus_step_size), m), root)), used);
  });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
