// AdamW against the same steps in double precision and against PyTorch's own, and the sum of squares.
#include <cmath>

#include "check.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

Floats joined(const OnDevice<float>& a, const OnDevice<float>& b, const OnDevice<float>& c) {
  Floats all = a.values();
  for (const OnDevice<float>* more : {&b, &c}) {
    const Floats values = more->values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace

TEST("ops: adamw") {
  const size_t n = 20011;  // several pieces, and a last vector that is not full
  const int steps = 5;
  const Floats w = normal(n, 141), zeros(n, 0.0f);
  std::vector<Floats> gradients;
  for (int s = 0; s < steps; ++s) gradients.push_back(normal(n, 142 + uint64_t(s), 3));
  Ops::Adamw a{1e-3, 0.9, 0.99, 1e-8, 0.05, 0.25, 1};
  const Floats found = on_every_level("adamw", [&](Ops& ops) {
    const OnDevice<float> there(ops, w), first(ops, zeros), second(ops, zeros);
    Ops::Adamw now = a;
    for (now.step = 1; now.step <= steps; ++now.step) {
      const OnDevice<float> dw(ops, gradients[size_t(now.step - 1)]);
      ops.adamw(there, first, second, dw, int64_t(n), now);
    }
    return joined(there, first, second);
  });
  std::vector<double> expected(3 * n), allowed(3 * n);
  for (size_t i = 0; i < n; ++i) {
    double value = w[i], m = 0, v = 0, m_size = 0, moved = 0, value_error = 0;
    for (int s = 1; s <= steps; ++s) {
      const double g = gradients[size_t(s - 1)][i] * a.gradient_scale;
      value *= 1 - a.rate * a.weight_decay;
      m = a.beta1 * m + (1 - a.beta1) * g;
      m_size = a.beta1 * m_size + (1 - a.beta1) * (std::fabs(g) + std::fabs(m));
      v = a.beta2 * v + (1 - a.beta2) * g * g;
      const double root = std::sqrt(v) / std::sqrt(1 - std::pow(a.beta2, s)) + a.epsilon;
      const double step = a.rate / (1 - std::pow(a.beta1, s));
      value -= step * m / root;
      // The moments: 5 roundings a step at most (scale, coefficient, difference or products, sum). The value: its own
      // two, and the move's, which has the moments' errors and 8 roundings besides.
      moved += step / root * (m_size * 5 * s + std::fabs(m) * (2.5 * s + 8));
      value_error += 3 * std::fabs(value);
    }
    expected[i] = value, expected[n + i] = m, expected[2 * n + i] = v;
    allowed[i] = kRounding * (value_error + moved);
    allowed[n + i] = kRounding * 5 * steps * m_size;
    allowed[2 * n + i] = kRounding * 5 * steps * v;
  }
  near("adamw", found, expected, allowed);
}

TEST("ops: adamw is PyTorch's") {
  // torch.optim.AdamW (2.13, cpu, foreach=False) from these weights with these gradients: weights, first and second
  // moments.
  const Floats w{0.5f, -1.25f, 0.0009765625f, 3.0f}, zeros(4, 0.0f);
  const std::vector<Floats> gradients{
      {0.125f, -2.0f, 1e-6f, 0.75f}, {0.25f, 1.0f, -3e-6f, 0.0f}, {-0.5f, 0.5f, 2e-6f, 1024.0f}};
  const Floats expected{0x1.ed1bcap-2f,  -0x1.3c1fc6p+0f, -0x1.124e12p-8f, 0x1.7c785ap+1f,
                        -0x1.1cac0ap-6f, -0x1.6872b0p-6f, 0x1.79f4e2p-27f, 0x1.99d7d0p+6f,
                        0x1.57f73ap-12f, 0x1.577976p-8f,  0x1.f801c6p-47f, 0x1.0624e8p+10f};
  Ops& ops = cpu(cpu_levels().back(), 1);
  const OnDevice<float> there(ops, w), first(ops, zeros), second(ops, zeros);
  Ops::Adamw a{0.01, 0.9, 0.999, 1e-8, 0.05, 1, 1};
  for (; a.step <= 3; ++a.step) {
    const OnDevice<float> dw(ops, gradients[size_t(a.step - 1)]);
    ops.adamw(there, first, second, dw, 4, a);
  }
  // What is left to differ is which products PyTorch's build fuses with their sums: one rounding in each of the three
  // steps' moments and values; none of the values above comes out of a cancellation by more than 16.
  const Floats found = joined(there, first, second);
  for (size_t i = 0; i < found.size(); ++i)
    CHECK_NEAR(found[i], expected[i], 16 * 3 * kRounding * std::fabs(expected[i]));
}

TEST("ops: squared_sum") {
  for (size_t n : {size_t(0), size_t(1), size_t(8191), size_t(100003)}) {
    const Floats x = normal(n, 151, 1e3f);
    long double exact = 0;
    for (float value : x) exact += (long double)(value)*value;
    double first = 0;
    for (const std::string& level : cpu_levels()) {
      for (int threads = 1; threads <= 3; ++threads) {
        Ops& ops = cpu(level, threads);
        const OnDevice<float> there(ops, x);
        const double found = ops.squared_sum(there, int64_t(n));
        if (level == cpu_levels().front() && threads == 1) first = found;
        CHECK_EQUAL(found, first);
      }
    }
    // squares of float32 are exact in double; at most 1024 additions a lane, 3 in the tree, 13 of stretches
    CHECK_NEAR(first, double(exact), 1040 * 0x1p-53 * double(exact));
  }
}
