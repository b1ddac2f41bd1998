// Products with F32 weights on a device: one chain of fused multiply-adds over the columns, bit for bit.
#include <cmath>

#include "float_product_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

struct Case {
  int T;
  int64_t rows, cols;
  bool bias = false;
  Accumulate accumulate = Accumulate::no;
};

std::string title(const Case& c) {
  return "matmul F32 " + std::to_string(c.T) + " x " + std::to_string(c.cols) + " -> " + std::to_string(c.rows);
}

struct Inputs {
  Floats w, x, bias, y;
};
Inputs inputs(const Case& c) {
  return {normal(size_t(c.rows * c.cols), 31), normal(size_t(c.T * c.cols), 32), normal(size_t(c.rows), 33),
          normal(size_t(c.T * c.rows), 34)};
}

/// The last `count` rows.
Floats run(const Case& c, const Inputs& in, int count) {
  Ops& ops = device_case::device();
  const auto matrix = ops.matrix({Type::F32, c.rows, c.cols, in.w.data()}, "weights");
  const OnDevice<float> x(ops, Floats(in.x.end() - count * c.cols, in.x.end())),
      y(ops, Floats(in.y.end() - count * c.rows, in.y.end())), bias(ops, in.bias);
  ops.matmul(y, *matrix, x, c.bias ? static_cast<float*>(bias) : nullptr, count, c.accumulate);
  return y.values();
}

/// What the device promises, computed here.
Floats chains(const Case& c, const Inputs& in) {
  Floats y = in.y;
  for (int t = 0; t < c.T; ++t) {
    for (int64_t r = 0; r < c.rows; ++r) {
      float sum = 0;
      for (int64_t k = 0; k < c.cols; ++k) {
        sum = std::fma(in.x[size_t(t * c.cols + k)], in.w[size_t(r * c.cols + k)], sum);
      }
      if (c.bias) sum += in.bias[size_t(r)];
      float& value = y[size_t(t * c.rows + r)];
      value = c.accumulate == Accumulate::yes ? sum + value : sum;
    }
  }
  return y;
}

}  // namespace

TEST("cuda: matmul with float32 weights") {
  for (const Case& c :
       {Case{1, 33, 40}, Case{1, 7, 1408, true}, Case{3, 16, 129, true, Accumulate::yes}, Case{8, 100, 88, true},
        Case{9, 33, 77, false, Accumulate::yes}, Case{32, 1, 1}, Case{32, 40, 131, true}, Case{33, 33, 40, true},
        Case{65, 130, 75, true, Accumulate::yes}, Case{130, 260, 16, false, Accumulate::yes}, Case{64, 128, 48}}) {
    const Inputs in = inputs(c);
    device_case::same(title(c), {run(c, in, c.T), chains(c, in)});
  }
}

TEST("cuda: matmul with float32 weights is the CPU's but for the order of its sums") {
  const Case c{40, 65, 768, true};
  const Inputs in = inputs(c);
  device_case::Pair pair{run(c, in, c.T), {}};
  pair.expected = [&] {
    Ops& ops = device_case::reference();
    const auto matrix = ops.matrix({Type::F32, c.rows, c.cols, in.w.data()}, "weights");
    const OnDevice<float> x(ops, in.x), y(ops, in.y), bias(ops, in.bias);
    ops.matmul(y, *matrix, x, bias, c.T, c.accumulate);
    return y.values();
  }();
  const float_product_case::Sums of = float_product_case::sums(in.x, in.w, c.T, c.rows, c.cols);
  float_product_case::Doubles allowed;  // each of the two rounds at most once a column, and once with the bias
  for (double size : of.size) allowed.push_back(2 * double(c.cols + 1) * kRounding * (size + 4));
  device_case::near(title(c), pair, allowed);
}

TEST("cuda: a row of matmul with float32 weights does not depend on its batch") {
  for (int64_t cols : {132, 75}) {
    const Case c{257, 136, cols, true, Accumulate::yes};
    const Inputs in = inputs(c);
    const Floats together = run(c, in, c.T);
    for (int T : {1, 3, 8, 9, 31, 33, 64, 130}) {
      same_bits(title(c) + ", the last " + std::to_string(T), run(c, in, T),
                Floats(together.end() - T * c.rows, together.end()));
    }
  }
}

TEST("cuda: memory of matmul with float32 weights") {
  const auto product = [](const Case& c) { run(c, inputs(c), c.T); };
  const Case one{1, 256, 512, true}, few{32, 64, 256, false, Accumulate::yes},
      many{128, 256, 64, true, Accumulate::yes};
  // weights once; 16 outputs share a row of activations
  device_case::traffic("matmul_f32_few",
                       {.bytes = 1.05 * (256 * 512 * 4 + 512 * 4 * 256.0 / 16 + 3 * 256 * 4), .reason = {}},
                       [&] { product(one); });
  device_case::traffic("matmul_f32_few", {}, [&] { product(few); });
  // two tiles of tokens by two of outputs; y is read and written
  device_case::traffic(
      "float_product",
      {.bytes = 1.05 * ((2.0 * 128 + 2.0 * 256) * 64 * 4 + 2.0 * 128 * 256 * 4 + 128 * 256 * 4 / 4), .reason = {}},
      [&] { product(many); });
  // an odd width: rows begin anywhere in a sector, so that 8 of a row's values may lie in two
  const Case odd{64, 128, 77};
  device_case::traffic("float_product", {.useful_reads = 0.45, .reason = "rows of 77 floats are not made of sectors"},
                       [&] { product(odd); });
}
