// LayerNorm, RMSNorm and its gradient on the device, against double precision.
#include <cmath>

#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;

namespace {

constexpr float kEps = 1e-6f;
// Additions that a value goes through: up to 8 of its own thread in rows of up to 8192 (row_threads gives two packs of
// four, or five single values of 4097), then two trees of 5 steps.
constexpr double kChain = 8 + 10;

struct Shape {
  int T, C;
  float mean, scale;
};
const Shape kShapes[] = {{1, 1, 1, 1},       {5, 1, 0, 3},           {3, 33, 0, 1},
                         {257, 88, 3, 0.1f}, {1, 1408, 0, 1},        {37, 1408, -2, 10},
                         {2, 4096, 0, 1},    {3, 4097, 0.5f, 1e-4f}, {2, 5120, 0, 1}};

Floats values_of(const Shape& s, uint64_t seed) {
  Floats x = normal(size_t(s.T) * s.C, seed, s.scale);
  for (float& v : x) v += s.mean;
  return x;
}

/// What a norm leaves of rows that begin `off` floats into their memory, in place if so asked.
using Norm = std::function<void(Ops&, float* y, const float* x, int T)>;
Floats normed(const Floats& x, int T, size_t off, bool in_place, const Norm& norm) {
  Ops& ops = device();
  Floats padded(off, 0.0f);
  padded.insert(padded.end(), x.begin(), x.end());
  const OnDevice<float> in(ops, padded), out(ops, padded.size());
  float* y = in_place ? in + off : out + off;
  norm(ops, y, in + off, T);
  Floats found = in_place ? in.values() : out.values();
  return {found.begin() + std::ptrdiff_t(off), found.end()};
}

/// A row's bits are the row's alone: not changed by its neighbours, by its address, or by writing in place.
void check_bits(const std::string& what, const Floats& x, int T, int C, const Floats& found, const Norm& norm) {
  same_bits(what + " in place", normed(x, T, 0, true, norm), found);
  same_bits(what + " at an odd address", normed(x, T, 1, false, norm), found);
  const auto row = std::ptrdiff_t(T - 1) * C;
  same_bits(what + " of the last row alone", normed({x.begin() + row, x.end()}, 1, 0, false, norm),
            {found.begin() + row, found.end()});
}

}  // namespace

TEST("cuda: layer_norm") {
  for (const Shape& s : kShapes) {
    const Floats x = values_of(s, 21), weight = normal(s.C, 22), bias = normal(s.C, 23);
    const OnDevice<float> w(device(), weight), b(device(), bias);
    const Norm norm = [&](Ops& ops, float* y, const float* in, int T) { ops.layer_norm(y, in, w, b, T, s.C, kEps); };
    const Floats found = normed(x, s.T, 0, false, norm);
    std::vector<double> expected(x.size()), allowed(x.size());
    for (int t = 0; t < s.T; ++t) {
      const float* row = &x[size_t(t) * s.C];
      double sum = 0, size = 0, around = 0;
      for (int i = 0; i < s.C; ++i) sum += row[i], size += std::fabs(row[i]);
      const double mean = sum / s.C;
      for (int i = 0; i < s.C; ++i) around += (row[i] - mean) * (row[i] - mean);
      const double deviation = std::sqrt(around / s.C + kEps), mean_error = (kChain + 1) * kRounding * size / s.C;
      for (int i = 0; i < s.C; ++i) {
        const size_t at = size_t(t) * s.C + i;
        const double normal_value = (row[i] - mean) / deviation;
        // The difference: the mean's error, and its own rounding relative to the larger operand. The inverse root: half
        // the sum's relative error, that of the differences, three roundings. Then the products and the sum.
        const double difference = mean_error + kRounding * (std::fabs(row[i]) + std::fabs(mean));
        const double relative =
            (kChain / 2 + 6) * kRounding + 2 * difference * std::sqrt(around / s.C) / (deviation * deviation);
        expected[at] = normal_value * weight[i] + bias[i];
        allowed[at] = std::fabs(weight[i]) * (std::fabs(normal_value) * relative + difference / deviation) +
                      2 * kRounding * (std::fabs(expected[at]) + std::fabs(bias[i]));
      }
    }
    near("layer_norm", found, expected, allowed);
    check_bits("layer_norm", x, s.T, s.C, found, norm);
  }
}

TEST("cuda: rms_norm") {
  for (const Shape& s : kShapes) {
    const Floats x = values_of(s, 24), weight = normal(s.C, 25);
    const OnDevice<float> w(device(), weight);
    const Norm norm = [&](Ops& ops, float* y, const float* in, int T) { ops.rms_norm(y, in, w, T, s.C, kEps); };
    const Floats found = normed(x, s.T, 0, false, norm);
    std::vector<double> expected(x.size()), allowed(x.size());
    for (int t = 0; t < s.T; ++t) {
      const float* row = &x[size_t(t) * s.C];
      double squares = 0;
      for (int i = 0; i < s.C; ++i) squares += double(row[i]) * row[i];
      for (int i = 0; i < s.C; ++i) {
        const size_t at = size_t(t) * s.C + i;
        expected[at] = row[i] / std::sqrt(squares / s.C + kEps) * weight[i];
        // half the sum's relative error, five roundings of mean, addition, root, inverse and two products, one to spare
        allowed[at] = std::fabs(expected[at]) * (kChain / 2 + 6) * kRounding;
      }
    }
    near("rms_norm", found, expected, allowed);
    check_bits("rms_norm", x, s.T, s.C, found, norm);
  }
}

TEST("cuda: rms_norm_dx") {
  for (const Shape& s : kShapes) {
    const size_t n = size_t(s.T) * s.C;
    const Floats x = values_of(s, 26), dy = normal(n, 27), weight = normal(s.C, 28), there = normal(n, 29);
    const OnDevice<float> in(device(), x), w(device(), weight);
    for (const bool accumulate : {false, true}) {
      const auto mode = accumulate ? Accumulate::yes : Accumulate::no;
      const OnDevice<float> d(device(), dy), dx(device(), there);
      device().rms_norm_dx(dx, d, in, w, s.T, s.C, kEps, mode);
      const Floats found = dx.values();
      std::vector<double> expected(n), allowed(n);
      for (int t = 0; t < s.T; ++t) {
        const size_t row = size_t(t) * s.C;
        double squares = 0, product = 0, size = 0;
        for (size_t i = row; i < row + s.C; ++i) {
          const double gx = double(dy[i]) * weight[i - row] * x[i];
          squares += double(x[i]) * x[i], product += gx, size += std::fabs(gx);
        }
        const double inverse = 1 / std::sqrt(squares / s.C + kEps), cube = inverse * inverse * inverse;
        for (size_t i = row; i < row + s.C; ++i) {
          const double g = double(dy[i]) * weight[i - row], mean = product / s.C;
          expected[i] = inverse * g - x[i] * cube * mean + (accumulate ? there[i] : 0.0f);
          // The inverse root's relative error as above, three times as much for its cube; the mean of products: its
          // chain and two roundings a product, relative to the sizes; then the products' and sums' own roundings.
          const double root = kChain / 2 + 4;
          allowed[i] =
              kRounding * (std::fabs(inverse * g) * (root + 3) +
                           std::fabs(x[i] * cube) * (std::fabs(mean) * (3 * root + 4) + size / s.C * (kChain + 3)) +
                           2 * std::fabs(expected[i]) + std::fabs(accumulate ? there[i] : 0.0f));
        }
      }
      near("rms_norm_dx", found, expected, allowed);
      if (!accumulate) {
        device().rms_norm_dx(d, d, in, w, s.T, s.C, kEps, mode);
        same_bits("rms_norm_dx into dy", d.values(), found);
        const size_t last = size_t(s.T - 1) * s.C;
        const OnDevice<float> d_last(device(), Floats(dy.begin() + std::ptrdiff_t(last), dy.end())),
            x_last(device(), Floats(x.begin() + std::ptrdiff_t(last), x.end()));
        device().rms_norm_dx(d_last, d_last, x_last, w, 1, s.C, kEps, mode);
        same_bits("rms_norm_dx of the last row alone", d_last.values(),
                  {found.begin() + std::ptrdiff_t(last), found.end()});
      }
    }
  }
}

TEST("cuda: no rows are normalised by no launch") {
  const OnDevice<float> one(device(), Floats{1});
  device().layer_norm(one, one, one, one, 0, 1, kEps);
  device().rms_norm(one, one, one, 0, 1, kEps);
  CHECK_EQUAL(one.values()[0], 1.0f);
}

TEST("cuda: memory traffic of norms") {
  const int T = 4, C = 1408;
  const double row = 4.0 * T * C;
  Ops& ops = device();
  const OnDevice<float> x(ops, normal(size_t(T) * C, 21)), y(ops, size_t(T) * C), w(ops, normal(C, 22));
  // rows in and out, the weights once: no sector beyond those
  device_case::traffic("layer_norm_kernel", {.bytes = 2 * row + 2 * 4.0 * C},
                       [&] { ops.layer_norm(y, x, w, w, T, C, kEps); });
  device_case::traffic("rms_norm_kernel", {.bytes = 2 * row + 4.0 * C}, [&] { ops.rms_norm(y, x, w, T, C, kEps); });
  device_case::traffic("rms_norm_dx_kernel", {.bytes = 3 * row + 4.0 * C},
                       [&] { ops.rms_norm_dx(y, y, x, w, T, C, kEps, Accumulate::no); });
}
