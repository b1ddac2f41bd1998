// Products with linear layers, and the forms of the rows that they read.
#pragma once

#include <array>
#include <cstddef>

#include "models/weights.h"

namespace minigpt4 {

/// y (+)= rows · weightᵀ + bias.
struct LinearProduct {
  float* y;
  const Linear* linear;
  Accumulate accumulate = Accumulate::no;
};

/// All of these with the same T rows.
template <size_t n>
void multiply(Ops& ops, const LinearProduct (&of)[n], const Ops::Rows& rows, int T) {
  std::array<Ops::Product, n> products;
  for (size_t i = 0; i < n; ++i) {
    products[i] = {of[i].y, of[i].linear->weight.get(), of[i].linear->bias.get(), of[i].accumulate};
  }
  ops.products(products, rows, T);
}

inline Ops::Rows rms_normed(const float* x, const Norm& norm, float eps) {
  return {.x = x, .form = Ops::Rows::Form::rms_norm, .weight = norm.weight.get(), .eps = eps};
}
inline Ops::Rows layer_normed(const float* x, const Norm& norm, float eps) {
  return {
      .x = x, .form = Ops::Rows::Form::layer_norm, .weight = norm.weight.get(), .bias = norm.bias.get(), .eps = eps};
}
inline Ops::Rows gelu_of(const float* x) { return {.x = x, .form = Ops::Rows::Form::gelu}; }
/// silu(gate) · up.
inline Ops::Rows silu_times(const float* gate, const float* up) {
  return {.x = gate, .form = Ops::Rows::Form::silu_mul, .up = up};
}

}  // namespace minigpt4
