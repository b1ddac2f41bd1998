// Activation functions and conversions, value by value.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

void gelu(float* y, const float* x, int64_t n) {
  each_vector(n, [&](int64_t i, int used) { store_part(y + i, gelu_of(load_part(x + i, used)), used); });
}

void silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  each_vector(n, [&](int64_t i, int used) {
    store_part(y + i, mul(silu_of(load_part(gate + i, used)), load_part(up + i, used)), used);
  });
}

void exponential(float* y, const float* x, int64_t n) {
  each_vector(n, [&](int64_t i, int used) { store_part(y + i, exp_of(load_part(x + i, used)), used); });
}

void to_half(uint16_t* y, const float* x, int64_t n) {
  each_vector(n, [&](int64_t i, int used) {
    if (used == kLanes) return store_half(y + i, load(x + i));
    uint16_t part[kLanes];
    store_half(part, load_n(x + i, used));
    for (int j = 0; j < used; ++j) y[i + j] = part[j];
  });
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
