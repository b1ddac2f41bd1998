// Activation functions, the gradient of SiLU times up, and fill on the device, against double precision.
#include <cmath>

#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;

namespace {

/// A fine walk through where things happen, and the ends of the range.
Floats interesting() {
  Floats x;
  for (int i = -4000; i <= 4000; ++i) x.push_back(float(i) * 0.0031f);
  for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 50.0f, -50.0f, 87.0f, -87.0f, 200.0f, -200.0f, 1e30f, -1e30f})
    x.push_back(v);
  return x;
}

/// values, `off` floats into memory of its own.
struct Shifted {
  Shifted(const Floats& values, size_t count) : off(count), memory(device(), padded(values, count)) {}
  static Floats padded(const Floats& values, size_t count) {
    Floats all(count, 7.0f);
    all.insert(all.end(), values.begin(), values.end());
    return all;
  }
  operator float*() const { return memory + off; }
  Floats values() const {
    const Floats all = memory.values();
    for (size_t i = 0; i < off; ++i) CHECK_EQUAL(all[i], 7.0f);  // what stands before was not touched
    return {all.begin() + std::ptrdiff_t(off), all.end()};
  }
  size_t off;
  OnDevice<float> memory;
};

}  // namespace

TEST("cuda: gelu") {
  const Floats x = interesting();
  const OnDevice<float> in(device(), x), out(device(), x.size());
  device().gelu(out, in, int64_t(x.size()));
  const Floats found = out.values();
  std::vector<double> expected, allowed;
  for (const double v : x) {
    const double tail = std::erfc(std::fabs(v) / std::sqrt(2)) / 2;
    expected.push_back(v * (v < 0 ? tail : 1 - tail));
    // erfc within 4 units in the last place (8 roundings) and two products; its argument has two roundings, which weigh
    // at most v² + 1 times as much in a tail and less than once before it. Below 1e-37 there may be nothing.
    allowed.push_back((10 + 2 * (v < 0 ? std::fmin(v * v, 1e4) + 1 : 1)) * kRounding * std::fabs(expected.back()) +
                      1e-37);
  }
  near("gelu", found, expected, allowed);
  const Shifted at_odd(x, 1);
  device().gelu(at_odd, at_odd, int64_t(x.size()));
  same_bits("gelu in place, at an odd address", at_odd.values(), found);
}

TEST("cuda: silu_mul") {
  const Floats x = interesting(), up = normal(x.size(), 31);
  const auto n = int64_t(x.size());
  const OnDevice<float> gate(device(), x), u(device(), up), out(device(), x.size());
  device().silu_mul(out, gate, u, n);
  const Floats found = out.values();
  std::vector<double> expected, allowed;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    expected.push_back(v / (1 + std::exp(-v)) * up[i]);
    // exp within 2 units in the last place (4 roundings), an addition, a division, a product; where the exponential
    // overflows nothing is left of less than |v| · 2^-128
    allowed.push_back(7 * kRounding * std::fabs(expected[i]) + 1e-36 * std::fabs(std::fmax(v, -1e3) * up[i]));
  }
  near("silu_mul", found, expected, allowed);
  const Shifted odd_gate(x, 3), odd_up(up, 2);
  device().silu_mul(odd_gate, odd_gate, odd_up, n);
  same_bits("silu_mul into gate, at odd addresses", odd_gate.values(), found);
  device().silu_mul(u, gate, u, n);
  same_bits("silu_mul into up", u.values(), found);
}

TEST("cuda: silu_mul_dx") {
  const Floats x = interesting(), up = normal(x.size(), 32), dy = normal(x.size(), 33);
  const auto n = int64_t(x.size());
  const OnDevice<float> gate(device(), x), u(device(), up), d(device(), dy), dgate(device(), x.size()),
      dup(device(), x.size());
  device().silu_mul_dx(dgate, dup, d, gate, u, n);
  const Floats gates = dgate.values(), ups = dup.values();
  std::vector<double> gate_expected, gate_allowed, up_expected, up_allowed;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], s = 1 / (1 + std::exp(-v)), rest = 1 / (1 + std::exp(v));
    up_expected.push_back(dy[i] * v * s);
    gate_expected.push_back(double(dy[i]) * up[i] * s * (1 + v * rest));
    // s: 4 roundings of exp, an addition, an inverse; 1 - s: as many and a product more; then the products and sums
    // around them. The exponential stops at exp(88): 1e-38 stays of s where less would be right.
    const double left = v < -87 ? 1.1e-38 : 0;
    up_allowed.push_back(std::fabs(dy[i] * v) * (8 * kRounding * s + left) + 1e-44);
    gate_allowed.push_back(std::fabs(double(dy[i]) * up[i]) *
                               (kRounding * s * (9 + 24 * std::fabs(v) * rest) + left * (1 + std::fabs(v))) +
                           1e-44);
  }
  near("dgate", gates, gate_expected, gate_allowed);
  near("dup", ups, up_expected, up_allowed);
  const Shifted odd_gate(x, 1), odd_up(up, 1), odd_d(dy, 3);
  device().silu_mul_dx(odd_gate, odd_up, odd_d, odd_gate, odd_up, n);
  same_bits("dgate into gate, at odd addresses", odd_gate.values(), gates);
  same_bits("dup into up, at odd addresses", odd_up.values(), ups);
  device().silu_mul_dx(d, u, d, gate, u, n);
  same_bits("dgate into dy", d.values(), gates);
}

TEST("cuda: NaN stays NaN") {
  const OnDevice<float> x(device(), Floats{NAN}), one(device(), Floats{1}), y(device(), Floats{0}),
      z(device(), Floats{0});
  device().gelu(y, x, 1);
  CHECK(std::isnan(y.values()[0]));
  device().silu_mul(y, x, one, 1);
  CHECK(std::isnan(y.values()[0]));
  device().silu_mul_dx(y, z, one, x, one, 1);
  CHECK(std::isnan(y.values()[0]) && std::isnan(z.values()[0]));
}

TEST("cuda: fill, for every length and place") {
  for (const int64_t n : {0, 1, 3, 4, 5, 1023, 1025, 100003}) {
    for (const size_t off : {0, 1}) {
      Floats expected(size_t(n) + 1, 2.5f);
      expected.back() = -1;
      const Shifted y(Floats(size_t(n) + 1, -1.0f), off);
      device().fill(y, 2.5f, n);
      same_bits("fill", y.values(), expected);
    }
  }
}

TEST("cuda: memory traffic of value by value ops") {
  const int64_t n = 16 * 1408;
  const double bytes = 4.0 * n;
  Ops& ops = device();
  const OnDevice<float> a(ops, normal(size_t(n), 31)), b(ops, normal(size_t(n), 32)), c(ops, normal(size_t(n), 33)),
      y(ops, size_t(n)), z(ops, size_t(n));
  device_case::traffic("gelu_kernel", {.bytes = 2 * bytes}, [&] { ops.gelu(y, a, n); });
  device_case::traffic("silu_mul_kernel", {.bytes = 3 * bytes}, [&] { ops.silu_mul(y, a, b, n); });
  device_case::traffic("silu_mul_dx_kernel", {.bytes = 5 * bytes}, [&] { ops.silu_mul_dx(y, z, a, b, c, n); });
  device_case::traffic("fill_kernel", {.bytes = bytes}, [&] { ops.fill(y, 1, n); });
}
