// Norms, activation functions, rotary positions and the other ops that work row by row, against double precision.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

TEST("ops: layer_norm and rms_norm") {
  struct Case {
    int T, C;
    float mean, scale;
  };
  for (const Case& c : {Case{257, 1408, 0, 1}, Case{1, 88, 3, 0.1f}, Case{5, 1, 1, 1}, Case{37, 264, -2, 10},
                        Case{3, 17, 0, 1e-4f}, Case{2, 40, 0, 1}}) {
    Floats x = normal(size_t(c.T) * c.C, 21, c.scale);
    for (float& v : x) v += c.mean;
    const Floats weight = normal(c.C, 22), bias = normal(c.C, 23);
    const float eps = 1e-6f;
    const Floats layer = on_every_level("layer_norm", [&](Ops& ops) {
      const OnDevice<float> w(ops, weight), b(ops, bias), y(ops, x);
      ops.layer_norm(y, y, w, b, c.T, c.C, eps);
      return y.values();
    });
    const Floats rms = on_every_level("rms_norm", [&](Ops& ops) {
      const OnDevice<float> in(ops, x), w(ops, weight), y(ops, x.size());
      ops.rms_norm(y, in, w, c.T, c.C, eps);
      return y.values();
    });
    std::vector<double> layer_expected(x.size()), layer_allowed(x.size()), rms_expected(x.size()),
        rms_allowed(x.size());
    // A lane adds C / 16 values, the tree 4 more.
    const double chain = c.C / 16 + 5;
    for (int t = 0; t < c.T; ++t) {
      const float* row = &x[size_t(t) * c.C];
      double sum = 0, squares = 0, size = 0, around = 0;
      for (int i = 0; i < c.C; ++i) sum += row[i], squares += double(row[i]) * row[i], size += std::fabs(row[i]);
      const double mean = sum / c.C, mean_error = (chain + 1) * kRounding * size / c.C;
      for (int i = 0; i < c.C; ++i) around += (row[i] - mean) * (row[i] - mean);
      const double inverse = 1 / std::sqrt(around / c.C + eps), rms_inverse = 1 / std::sqrt(squares / c.C + eps);
      for (int i = 0; i < c.C; ++i) {
        const size_t at = size_t(t) * c.C + i;
        // Relative error of the inverse root: half that of the sum (chain and one more rounding a square) and three of
        // division, addition, root; the mean's error adds its square to the variance and itself to the difference,
        // whose own rounding is relative to the larger operand's.
        const double relative = (chain / 2 + 6) * kRounding;
        const double difference = mean_error + kRounding * (std::fabs(row[i]) + std::fabs(mean));
        const double spread = std::sqrt(around / c.C + eps);
        const double normalized = (row[i] - mean) * inverse;
        layer_expected[at] = normalized * weight[i] + bias[i];
        layer_allowed[at] =
            std::fabs(weight[i]) *
                (std::fabs(normalized) * (relative + 2 * difference * std::sqrt(around / c.C) * inverse * inverse) +
                 difference / spread) +
            2 * kRounding * (std::fabs(layer_expected[at]) + std::fabs(bias[i]));
        rms_expected[at] = row[i] * rms_inverse * weight[i];
        rms_allowed[at] = std::fabs(rms_expected[at]) * (relative + 2 * kRounding);
      }
    }
    near("layer_norm", layer, layer_expected, layer_allowed);
    near("rms_norm", rms, rms_expected, rms_allowed);
  }
}

TEST("ops: gelu and silu_mul") {
  Floats x, up;
  for (int i = -4000; i <= 4000; ++i) x.push_back(float(i) * 0.0031f);
  for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 50.0f, -50.0f, 87.0f, -87.0f, 200.0f, -200.0f, 1e30f, -1e30f})
    x.push_back(v);
  up = normal(x.size(), 31);
  const Floats gelu = on_every_level("gelu", [&](Ops& ops) {
    const OnDevice<float> y(ops, x);
    ops.gelu(y, y, int64_t(x.size()));
    return y.values();
  });
  const Floats silu = on_every_level("silu_mul", [&](Ops& ops) {
    const OnDevice<float> gate(ops, x), u(ops, up), y(ops, x.size());
    ops.silu_mul(y, gate, u, int64_t(x.size()));
    return y.values();
  });
  std::vector<double> gelu_expected, gelu_allowed, silu_expected, silu_allowed;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], tail = std::erfc(std::fabs(v) / std::sqrt(2)) / 2;
    gelu_expected.push_back(v * (v < 0 ? tail : 1 - tail));
    // Five roundings of numbers up to |x|; a tail's relative error is that of its exponent, x²/2 rounded twice.
    gelu_allowed.push_back(5 * kRounding * std::fabs(gelu_expected[i]) +
                           std::fabs(v) * tail * (v * v * 2 * kRounding + 3e-7) + 1e-37);
    silu_expected.push_back(v / (1 + std::exp(-v)) * up[i]);
    // exp within 2 units in the last place (4 roundings), then an addition, a division, a product. Below -88 the
    // exponential stays at exp(88): what is left is below 1e-36 a unit of x.
    silu_allowed.push_back(7 * kRounding * std::fabs(silu_expected[i]) +
                           1e-36 * std::max(1.0, std::fabs(v)) * std::fabs(up[i]));
    if (v < -1e29) silu_allowed.back() = 1e-8 * std::fabs(up[i]);
  }
  near("gelu", gelu, gelu_expected, gelu_allowed);
  near("silu_mul", silu, silu_expected, silu_allowed);
  for (const std::string& level : cpu_levels()) {
    Ops& ops = cpu(level, 1);
    const OnDevice<float> y(ops, Floats{NAN}), one(ops, Floats{1});
    ops.gelu(y, y, 1);
    CHECK(std::isnan(y.values()[0]));
    ops.silu_mul(y, y, one, 1);
    CHECK(std::isnan(y.values()[0]));
  }
}

TEST("ops: rotary positions") {
  const int T = 5, H = 3, D = 88, half = 32;  // the last 24 values of a head stay
  const std::vector<int32_t> positions{0, 1, 2, 1000, 4095};
  Floats frequencies(half);
  for (int i = 0; i < half; ++i) frequencies[i] = float(std::pow(10000.0, -double(i) / half));
  const Floats x = normal(size_t(T) * H * D, 41);
  Floats table;
  const Floats found = on_every_level("rope", [&](Ops& ops) {
    const OnDevice<int32_t> p(ops, positions);
    const OnDevice<float> f(ops, frequencies), t(ops, size_t(T) * half * 2), y(ops, x);
    ops.rope_table(t, p, f, T, half);
    ops.rope(y, t, T, H, D, half);
    table = t.values();
    return y.values();
  });
  std::vector<double> expected(x.begin(), x.end()), allowed(x.size());
  for (int t = 0; t < T; ++t) {
    for (int i = 0; i < half; ++i) {
      const double angle = float(positions[t]) * frequencies[i], c = std::cos(angle), s = std::sin(angle);
      CHECK_NEAR(table[size_t(t * half + i) * 2], c, kRounding);
      CHECK_NEAR(table[size_t(t * half + i) * 2 + 1], s, kRounding);
      for (int h = 0; h < H; ++h) {
        const size_t at = size_t((t * H + h) * D + 2 * i);
        const double a = x[at], b = x[at + 1];
        expected[at] = a * c - b * s;
        expected[at + 1] = a * s + b * c;
        // cosine, product and sum rounded once each
        allowed[at] = allowed[at + 1] = 3 * kRounding * (std::fabs(a) + std::fabs(b));
      }
    }
  }
  near("rope", found, expected, allowed);
}

TEST("ops: gather_rows, scatter_rows, fill, copy") {
  Ops& ops = cpu(cpu_levels().back(), 3);
  const int C = 77;
  const Floats x = normal(size_t(5) * C, 51), other = normal(size_t(100003), 52);
  const OnDevice<float> on_device(ops, x), y(ops, size_t(3) * C);
  const OnDevice<int32_t> rows(ops, std::vector<int32_t>{4, 0, 4});
  ops.gather_rows(y, on_device, rows, 3, C);
  const Floats gathered = y.values();
  CHECK_EQUAL(gathered[0], x[size_t(4) * C]);
  CHECK_EQUAL(gathered[size_t(2) * C - 1], x[size_t(C) - 1]);
  CHECK_EQUAL(gathered[size_t(3) * C - 1], x[size_t(5) * C - 1]);
  const OnDevice<int32_t> places(ops, std::vector<int32_t>{3, 0});
  const OnDevice<float> scattered(ops, x);
  ops.scatter_rows(scattered, y, places, 2, C);
  Floats expected = x;
  std::copy(gathered.begin(), gathered.begin() + C, expected.begin() + 3 * C);
  std::copy(gathered.begin() + C, gathered.begin() + 2 * C, expected.begin());
  same_bits("scatter_rows", scattered.values(), expected);
  const OnDevice<float> filled(ops, other), source(ops, other);
  ops.fill(filled, 2.5f, int64_t(other.size()) - 1);
  expected.assign(other.size(), 2.5f);
  expected.back() = other.back();
  same_bits("fill", filled.values(), expected);
  ops.copy(filled, source, 5 * sizeof(float));
  std::copy(other.begin(), other.begin() + 5, expected.begin());
  same_bits("copy", filled.values(), expected);
}

TEST("ops: patches and the class token") {
  const int B = 2, S = 28, p = 14, side = S / p, P = side * side, width = 3 * p * p;
  const Floats pixels = normal(size_t(B) * 3 * S * S, 61);
  Ops& ops = cpu(cpu_levels().back(), 2);
  const OnDevice<float> in(ops, pixels), patches(ops, size_t(B) * P * width);
  ops.patchify(patches, in, B, S, p);
  Floats expected;
  for (int b = 0; b < B; ++b)
    for (int row = 0; row < side; ++row)
      for (int column = 0; column < side; ++column)
        for (int channel = 0; channel < 3; ++channel)
          for (int i = 0; i < p; ++i)
            for (int j = 0; j < p; ++j) {
              expected.push_back(pixels[size_t(((b * 3 + channel) * S + row * p + i) * S + column * p + j)]);
            }
  same_bits("patchify", patches.values(), expected);
  const int C = 21;
  const Floats class_token = normal(C, 62), positions = normal(size_t(P + 1) * C, 63),
               embedded = normal(size_t(B) * P * C, 64);
  const OnDevice<float> token(ops, class_token), place(ops, positions), rows(ops, embedded),
      x(ops, size_t(B) * (P + 1) * C);
  ops.prepend_class(x, rows, token, place, B, P, C);
  const Floats joined = x.values();
  for (int b = 0; b < B; ++b) {
    for (int i = 0; i <= P; ++i) {
      for (int c = 0; c < C; ++c) {
        const float from = i == 0 ? class_token[c] : embedded[size_t((b * P + i - 1) * C + c)];
        CHECK_EQUAL(joined[size_t((b * (P + 1) + i) * C + c)], from + positions[size_t(i * C + c)]);
      }
    }
  }
}
