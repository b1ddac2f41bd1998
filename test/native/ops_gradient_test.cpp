// Gradients of the ops that work row by row: against formulas in double precision, which central differences prove.
#include <cmath>

#include "check.h"
#include "finite_difference.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

Doubles wide(const Floats& x) { return Doubles(x.begin(), x.end()); }

Doubles rms_norm(const Doubles& x, const Floats& weight, double eps) {
  const size_t C = weight.size();
  Doubles y(x.size());
  for (size_t t = 0; t < x.size(); t += C) {
    double squares = 0;
    for (size_t i = 0; i < C; ++i) squares += x[t + i] * x[t + i];
    for (size_t i = 0; i < C; ++i) y[t + i] = x[t + i] / std::sqrt(squares / double(C) + eps) * weight[i];
  }
  return y;
}

double silu(double x) { return x / (1 + std::exp(-x)); }
double silu_slope(double x) { return 1 / (1 + std::exp(-x)) * (1 + x / (1 + std::exp(x))); }

}  // namespace

TEST("ops: rms_norm_dx") {
  const double eps = 1e-6f;
  struct Shape {
    int T, C;
    Accumulate accumulate;
  };
  for (const Shape& s : {Shape{257, 264, Accumulate::no}, Shape{1, 88, Accumulate::yes}, Shape{5, 1, Accumulate::no},
                         Shape{3, 17, Accumulate::yes}, Shape{2, 4096, Accumulate::no}}) {
    const size_t n = size_t(s.T) * s.C;
    const Floats x = normal(n, 91), dy = normal(n, 92), weight = normal(size_t(s.C), 93), before = normal(n, 94);
    const Floats found = on_every_level("rms_norm_dx", [&](Ops& ops) {
      const OnDevice<float> dx(ops, before), d(ops, dy), in(ops, x), w(ops, weight);
      ops.rms_norm_dx(dx, d, in, w, s.T, s.C, float(eps), s.accumulate);
      return dx.values();
    });
    Doubles gradient(n), expected(n), allowed(n);
    const double chain = s.C / 16 + 5;  // a lane adds C / 16 values, the tree 4 more
    for (size_t t = 0; t < n; t += s.C) {
      double squares = 0, dot = 0, size = 0;
      for (int i = 0; i < s.C; ++i) {
        const double v = x[t + i], g = double(dy[t + i]) * weight[i];
        squares += v * v, dot += g * v, size += std::fabs(g * v);
      }
      const double inverse = 1 / std::sqrt(squares / s.C + eps), cubed = inverse * inverse * inverse;
      for (int i = 0; i < s.C; ++i) {
        const size_t at = t + i;
        const double direct = double(dy[at]) * weight[i] * inverse, back = x[at] * cubed * dot / s.C;
        gradient[at] = direct - back;
        expected[at] = gradient[at] + (s.accumulate == Accumulate::yes ? before[at] : 0);
        // 1 / root: half the squares' error, and the mean, eps, root and quotient (4); cubed three times that. The dot
        // product: its chain and a rounding of each term; then the products and sums of the last line.
        const double root = chain / 2 + 4;
        allowed[at] = kRounding * (std::fabs(direct) * (root + 3) + std::fabs(back) * (3 * root + 7) +
                                   std::fabs(x[at]) * cubed * size / s.C * (chain + 2) + std::fabs(expected[at]) * 2);
      }
    }
    near("rms_norm_dx", found, expected, allowed);
    if (s.C > 1 && n < 10000) {
      check_gradient(
          "rms_norm", [&](const Doubles& v) { return product(rms_norm(v, weight, eps), wide(dy)); }, wide(x), gradient);
    }
  }
}

TEST("ops: silu_mul_dx") {
  Floats gate;
  for (int i = -2000; i <= 2000; ++i) gate.push_back(float(i) * 0.0061f);
  const size_t ordinary = gate.size();
  for (float v : {0.0f, -0.0f, 1e-30f, 50.0f, -50.0f, 87.0f, -87.0f, 200.0f, -200.0f, 1e30f, -1e30f}) gate.push_back(v);
  const Floats up = normal(gate.size(), 101), dy = normal(gate.size(), 102);
  // where the outputs are the inputs' own memory
  Floats dup;
  const auto run = [&](Ops& ops, bool same) {
    const OnDevice<float> g(ops, gate), u(ops, up), d(ops, dy), a(ops, gate.size()), b(ops, gate.size());
    ops.silu_mul_dx(same ? g : a, same ? u : b, d, g, u, int64_t(gate.size()));
    Floats both = (same ? g : a).values();
    const Floats second = (same ? u : b).values();
    both.insert(both.end(), second.begin(), second.end());
    return both;
  };
  const Floats found = on_every_level("silu_mul_dx", [&](Ops& ops) { return run(ops, false); });
  same_bits("silu_mul_dx in place", on_every_level("silu_mul_dx", [&](Ops& ops) { return run(ops, true); }), found);
  Doubles expected, allowed, up_expected, up_allowed;
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i], s = 1 / (1 + std::exp(-x)), rest = 1 / (1 + std::exp(x)), d = dy[i], u = up[i];
    // The sigmoid has 6 roundings (exp within 2 units in the last place, an addition, a quotient), one minus it 11.
    // Below -88 the exponential stays at exp(88): what is left is below 1e-36 a unit of x.
    const double left = 1e-36 * std::max(1.0, std::fabs(x));
    up_expected.push_back(d * silu(x));
    up_allowed.push_back(kRounding * 9 * std::fabs(d * silu(x)) + left * std::fabs(d));
    expected.push_back(d * u * silu_slope(x));
    allowed.push_back(std::fabs(d * u) * (kRounding * s * (10 + 22 * std::fabs(x * rest)) + left));
  }
  Doubles gradient(expected.begin(), expected.begin() + ptrdiff_t(ordinary)),
      slice(gate.begin(), gate.begin() + ptrdiff_t(ordinary));
  check_gradient(
      "silu_mul by gate",
      [&](const Doubles& v) {
        double sum = 0;
        for (size_t i = 0; i < v.size(); ++i) sum += silu(v[i]) * up[i] * dy[i];
        return sum;
      },
      slice, gradient, 200);
  check_gradient(
      "silu_mul by up",
      [&](const Doubles& v) {
        double sum = 0;
        for (size_t i = 0; i < v.size(); ++i) sum += silu(gate[i]) * v[i] * dy[i];
        return sum;
      },
      Doubles(up.begin(), up.begin() + ptrdiff_t(ordinary)),
      Doubles(up_expected.begin(), up_expected.begin() + ptrdiff_t(ordinary)), 200);
  expected.insert(expected.end(), up_expected.begin(), up_expected.end());
  allowed.insert(allowed.end(), up_allowed.begin(), up_allowed.end());
  near("silu_mul_dx", found, expected, allowed);
}

TEST("ops: rope_dx") {
  const int T = 5, H = 3, D = 88, half = 32;  // the last 24 values of a head stay
  const std::vector<int32_t> positions{0, 1, 2, 1000, 4095};
  Floats frequencies(half), table;
  for (int i = 0; i < half; ++i) frequencies[i] = float(std::pow(10000.0, -double(i) / half));
  const Floats x = normal(size_t(T) * H * D, 111), dy = normal(x.size(), 112);
  const Floats found = on_every_level("rope_dx", [&](Ops& ops) {
    const OnDevice<int32_t> p(ops, positions);
    const OnDevice<float> f(ops, frequencies), t(ops, size_t(T) * half * 2), dx(ops, dy);
    ops.rope_table(t, p, f, T, half);
    ops.rope_dx(dx, t, T, H, D, half);
    table = t.values();
    return dx.values();
  });
  // Rotations are linear: rotate(x) = x with pairs turned by the table.
  const auto rotate = [&](const Doubles& v, double direction) {
    Doubles y = v;
    for (size_t at = 0; at < v.size(); at += 2) {
      const size_t t = at / size_t(H * D), i = at % size_t(D) / 2;
      if (i >= size_t(half)) continue;
      const double c = table[(t * half + i) * 2], s = direction * table[(t * half + i) * 2 + 1];
      y[at] = v[at] * c - v[at + 1] * s;
      y[at + 1] = v[at] * s + v[at + 1] * c;
    }
    return y;
  };
  const Doubles expected = rotate(wide(dy), -1);
  check_gradient("rope", [&](const Doubles& v) { return product(rotate(v, 1), wide(dy)); }, wide(x), expected, 300);
  Doubles allowed(x.size());
  for (size_t i = 0; i < x.size(); ++i) allowed[i] = 2 * kRounding * (std::fabs(dy[i]) + std::fabs(dy[i ^ 1]));
  near("rope_dx", found, expected, allowed);
}

TEST("ops: cross_entropy") {
  struct Shape {
    int T, V;
    float scale;
  };
  for (const Shape& s :
       {Shape{257, 300, 3}, Shape{1, 32000, 1}, Shape{3, 17, 30}, Shape{2, 1, 1}, Shape{2, 129000, 5}}) {
    const size_t n = size_t(s.T) * s.V;
    const Floats logits = normal(n, 121, s.scale);
    std::vector<int32_t> targets;
    for (int t = 0; t < s.T; ++t) targets.push_back(t == 0 ? s.V - 1 : int(int64_t(t) * 7919 % s.V));
    const auto run = [&](Ops& ops, bool in_place) {
      const OnDevice<float> x(ops, logits), loss(ops, size_t(s.T)), d(ops, n);
      const OnDevice<int32_t> of(ops, targets);
      float* to = in_place ? x : d;
      ops.cross_entropy(loss, to, x, of, s.T, s.V);
      Floats both = loss.values();
      const Floats second = (in_place ? x : d).values();
      both.insert(both.end(), second.begin(), second.end());
      return both;
    };
    const Floats found = on_every_level("cross_entropy", [&](Ops& ops) { return run(ops, false); });
    same_bits("cross_entropy in place", run(cpu(cpu_levels().back(), 2), true), found);
    same_bits("losses alone",
              on_every_level("losses alone",
                             [&](Ops& ops) {
                               const OnDevice<float> x(ops, logits), loss(ops, size_t(s.T));
                               const OnDevice<int32_t> of(ops, targets);
                               ops.cross_entropy(loss, nullptr, x, of, s.T, s.V);
                               return loss.values();
                             }),
              Floats(found.begin(), found.begin() + s.T));
    Doubles expected(size_t(s.T)), allowed(size_t(s.T)), gradient(n), gradient_allowed(n);
    const auto loss_of = [&](const double* x, int target) {
      double most = x[0], sum = 0;
      for (int i = 1; i < s.V; ++i) most = std::max(most, x[i]);
      for (int i = 0; i < s.V; ++i) sum += std::exp(x[i] - most);
      return std::log(sum) + most - x[target];
    };
    const Doubles x = wide(logits);
    for (int t = 0; t < s.T; ++t) {
      const double* row = &x[size_t(t) * s.V];
      const double most = *std::max_element(row, row + s.V);
      double sum = 0, shifts = 0;
      for (int i = 0; i < s.V; ++i) {
        const double e = std::exp(row[i] - most);
        sum += e;
        shifts += e * (most - row[i]);
      }
      expected[t] = loss_of(row, targets[t]);
      // A term: exp within 2 units in the last place (4 roundings) of an argument that was rounded, which moves it by
      // as much as the argument is large; a stretch of 256 adds 16 in a lane and 4 in the tree; the rest is double.
      const double sum_error = 24 + shifts / sum;
      allowed[t] = kRounding * (sum_error + std::fabs(expected[t]));
      for (int i = 0; i < s.V; ++i) {
        const size_t at = size_t(t) * s.V + i;
        const double p = std::exp(row[i] - most) / sum;
        gradient[at] = p - (i == targets[t]);
        gradient_allowed[at] = kRounding * (p * (4 + (most - row[i]) + sum_error + 3) + (i == targets[t])) + 1e-38;
      }
    }
    near("cross_entropy", Floats(found.begin(), found.begin() + s.T), expected, allowed);
    near("cross_entropy's gradient", Floats(found.begin() + s.T, found.end()), gradient, gradient_allowed);
    if (s.V == 300 || s.V == 17) {
      check_gradient(
          "cross_entropy",
          [&](const Doubles& v) {
            double sum = 0;
            for (int t = 0; t < s.T; ++t) sum += loss_of(&v[size_t(t) * s.V], targets[t]);
            return sum;
          },
          x, gradient);
    }
  }
}

TEST("ops: what is not a number is not hidden by the loss") {
  for (const std::string& level : cpu_levels()) {
    Ops& ops = cpu(level, 1);
    for (float bad : {NAN, INFINITY}) {
      Floats logits = normal(40, 131);
      logits[7] = bad;
      const OnDevice<float> x(ops, logits), loss(ops, 1), d(ops, 40);
      const OnDevice<int32_t> target(ops, std::vector<int32_t>{3});
      ops.cross_entropy(loss, d, x, target, 1, 40);
      CHECK(std::isnan(loss.values()[0]));
      CHECK(std::isnan(d.values()[3]));
    }
  }
}
