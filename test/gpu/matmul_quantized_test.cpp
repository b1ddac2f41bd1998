// Products with quantized weights on the device: against double precision, and the same bits for any number of rows.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "float_product_case.h"
#ifdef MINIGPT4_SIMT_HOOKS
#include "simt/traffic.h"
#endif

using namespace minigpt4;
using namespace ops_case;
using device_case::device;
using float_product_case::one_multiprocessor;

namespace {

struct Case {
  int T;
  int64_t rows, cols;
  bool bias = false;
  Accumulate accumulate = Accumulate::no;
};

struct Inputs {
  std::vector<uint8_t> w;
  Floats x, bias, y;
};
Inputs inputs(const Case& c, std::vector<uint8_t> w) {
  return {std::move(w), normal(size_t(c.T * c.cols), 11), normal(size_t(c.rows), 12), normal(size_t(c.T * c.rows), 13)};
}

std::string title(Type type, const Case& c) {
  std::ostringstream text;
  text << name(type) << " " << c.T << " x " << c.cols << " -> " << c.rows;
  return text.str();
}

bool super(Type type) { return info(type).block_values == 256; }

/// Rows `first` to `first` + T of the case.
Floats run(Ops& ops, const Case& c, const Inputs& in, const Matrix& w, int first, int T) {
  const auto part = [&](const Floats& of, int64_t width) {
    return Floats(of.begin() + first * width, of.begin() + (first + T) * width);
  };
  const OnDevice<float> x(ops, part(in.x, c.cols)), bias(ops, in.bias), y(ops, part(in.y, c.rows));
  ops.matmul(y, w, x, c.bias ? static_cast<float*>(bias) : nullptr, T, c.accumulate);
  return y.values();
}
Floats run(Ops& ops, Type type, const Case& c, const Inputs& in) {
  return run(ops, c, in, *ops.matrix({type, c.rows, c.cols, in.w.data()}, "weights"), 0, c.T);
}

void check_against_double(Type type, const Case& c, const Inputs& in, const Floats& found) {
  const Floats w = decoded(type, in.w, c.rows, c.cols);
  std::vector<double> expected(size_t(c.T * c.rows)), allowed(expected.size());
  std::vector<int> q(size_t(c.cols));
  std::vector<double> d(size_t(c.cols / 32));
  // A term goes through the additions of its chunk: of a sixteenth of the columns, rounded up to steps of 256, two a run of
  // 16 columns at most; then 16 of chunks, bias and y. Before, two roundings of scale times d.
  const double roundings = 4.0 * 8 * std::ceil(double(c.cols) / 256 / 16) + 16 + 2 + 2;
  for (int t = 0; t < c.T; ++t) {
    for (int64_t b = 0; b < c.cols / 32; ++b) {  // as ops.h says: per 32, d = largest / 127, codes to nearest even
      const float* x = &in.x[size_t(t * c.cols + 32 * b)];
      float most = 0;
      for (int i = 0; i < 32; ++i) most = std::max(most, std::fabs(x[i]));
      d[b] = most / 127;
      for (int i = 0; i < 32; ++i) q[32 * b + i] = most > 0 ? int(std::nearbyint(x[i] * (127 / most))) : 0;
    }
    for (int64_t r = 0; r < c.rows; ++r) {
      const size_t at = size_t(t * c.rows + r);
      double sum = (c.bias ? in.bias[r] : 0.0) + (c.accumulate == Accumulate::yes ? in.y[at] : 0.0);
      double size = std::fabs(sum), largest = 0;
      for (int64_t k = 0; k < c.cols; ++k) {
        if (k % 256 == 0) {
          largest = 0;
          for (int64_t j = k; j < std::min(k + 256, c.cols); ++j)
            largest = std::max(largest, std::fabs(double(w[r * c.cols + j])));
        }
        sum += double(w[r * c.cols + k]) * d[k / 32] * q[k];
        // scale · code and minimum, of which a weight is the sum, are at most four times the largest weight nearby: codes
        // reach from 0 to twice the largest, and so does the minimum
        size += 4 * largest * d[k / 32] * std::abs(q[k]);
      }
      expected[at] = sum;
      allowed[at] = roundings * kRounding * size;
    }
  }
  near(title(type, c), found, expected, allowed);
}

}  // namespace

TEST("cuda: products with quantized weights") {
  for (Type type : block_types()) {
    const int64_t step = super(type) ? 256 : 32;
    for (const Case& c : {Case{1, 16, step}, Case{3, 49, 3 * step, true}, Case{17, 33, step, true, Accumulate::yes},
                          Case{1, 5, 18 * 256, false, Accumulate::yes}, Case{32, 40, 6 * 256 + (super(type) ? 0 : 32)},
                          Case{65, 130, 2 * 256, true, Accumulate::yes}, Case{33, 1, 33 * step}}) {
      for (const bool random : {false, true}) {
        const Inputs in = inputs(c, random ? random_blocks(type, c.rows, c.cols, 7) : weights(type, c.rows, c.cols, 6));
        check_against_double(type, c, in, run(device(), type, c, in));
      }
    }
  }
}

TEST("cuda: both tiles of many rows of products with quantized weights") {
  // one multiprocessor: the larger tile where it is filled, the smaller one where half of it would be left over
  for (Type type : block_types()) {
    const int64_t step = super(type) ? 256 : 32;
    for (const Case& c : {Case{60, 120, 3 * step, true, Accumulate::yes}, Case{64, 190, step, true},
                          Case{120, 250, 2 * step, false, Accumulate::yes}}) {
      const Inputs in = inputs(c, random_blocks(type, c.rows, c.cols, 7));
      check_against_double(type, c, in, run(one_multiprocessor(), type, c, in));
    }
#ifndef MINIGPT4_SIMT
    // the smaller tile, then the larger one, of a card of some hundred multiprocessors
    for (const Case& c : {Case{100, 12200, step, true, Accumulate::yes}, Case{190, 5600, step, true}}) {
      const Inputs in = inputs(c, random_blocks(type, c.rows, c.cols, 7));
      check_against_double(type, c, in, run(device(), type, c, in));
    }
#endif
  }
}

TEST("cuda: a row of a quantized product has the same bits among any number of rows") {
  struct Among {
    Case c;
    std::vector<int> T;
  };
  for (Type type : block_types()) {
    // 35 tiles of 64 columns (or 5 and 17 super-blocks): chunks of none, one, two and three. 5632 outputs are 132 blocks of
    // prefill's larger tile with 192 tokens, which fill a large device; of fewer there are groups of 32 tokens.
    for (const Among& of :
         {Among{{130, 49, super(type) ? 5 * 256 : 35 * 64 - 32, true, Accumulate::yes}, {1, 3, 8, 9, 16, 31, 33, 64}},
          Among{{70, 20, super(type) ? 17 * 256 : 64}, {1, 9, 64}}, Among{{192, 5632, super(type) ? 256 : 32}, {3}}}) {
      const Case& c = of.c;
      const Inputs in = inputs(c, random_blocks(type, c.rows, c.cols, 8));
      const auto w = device().matrix({type, c.rows, c.cols, in.w.data()}, "weights");
      const Floats together = run(device(), c, in, *w, 0, c.T);
      int first = 0;
      for (int T : of.T) {
        if (first + T > c.T) first = 0;
        same_bits(title(type, c) + ", " + std::to_string(T) + " rows", run(device(), c, in, *w, first, T),
                  Floats(together.begin() + first * c.rows, together.begin() + (first + T) * c.rows));
        first += 5;
      }
    }
    // prefill's tiles, the larger and the smaller one (outputs as above), and decoding
    for (const int64_t rows : {128, 190}) {
      const Case c{64, rows, super(type) ? 5 * 256 : 35 * 64 - 32, true, Accumulate::yes};
      const Inputs in = inputs(c, random_blocks(type, c.rows, c.cols, 9));
      const Floats tiles = run(one_multiprocessor(), type, c, in);
      same_bits(title(type, c) + ", groups of 32", run(device(), type, c, in), tiles);
      const auto w = device().matrix({type, c.rows, c.cols, in.w.data()}, "weights");
      same_bits(title(type, c) + ", 3 rows", run(device(), c, in, *w, 7, 3),
                Floats(tiles.begin() + 7 * c.rows, tiles.begin() + 10 * c.rows));
    }
  }
}

TEST("cuda: products of several types are those of each alone") {
  const int64_t cols = 512;
  struct Weight {
    Type type;
    int64_t rows;
    bool bias;
    Accumulate accumulate;
  };
  const Weight of[] = {{Type::Q4_0, 100, false, Accumulate::no}, {Type::Q6_K, 33, true, Accumulate::yes},
                       {Type::Q4_0, 16, true, Accumulate::yes},  {Type::Q4_0, 200, false, Accumulate::no},
                       {Type::Q4_0, 7, true, Accumulate::no},    {Type::F32, 20, true, Accumulate::no},
                       {Type::Q4_0, 48, false, Accumulate::yes}, {Type::F16, 24, false, Accumulate::no},
                       {Type::Q4_0, 1, false, Accumulate::no},   {Type::Q4_K, 64, false, Accumulate::no},
                       {Type::F16, 130, true, Accumulate::yes},  {Type::BF16, 40, false, Accumulate::no},
                       {Type::F16, 1, true, Accumulate::no},     {Type::F16, 90, false, Accumulate::yes},
                       {Type::F16, 33, false, Accumulate::no},   {Type::F16, 16, true, Accumulate::no}};
  Ops& ops = device();
  for (int T : {1, 20, 40}) {
    const OnDevice<float> x(ops, normal(size_t(T * cols), 3));
    std::vector<std::unique_ptr<Matrix>> w;
    std::vector<std::unique_ptr<OnDevice<float>>> bias, y, alone;
    std::vector<Ops::Product> products;
    for (const Weight& one : of) {
      const uint64_t seed = 20 + w.size();
      w.push_back(ops.matrix({one.type, one.rows, cols, weights(one.type, one.rows, cols, seed).data()}, "weights"));
      bias.push_back(std::make_unique<OnDevice<float>>(ops, normal(size_t(one.rows), seed)));
      for (auto* to : {&y, &alone})
        to->push_back(std::make_unique<OnDevice<float>>(ops, normal(size_t(T * one.rows), 9)));
      products.push_back(
          {*y.back(), w.back().get(), one.bias ? static_cast<float*>(*bias.back()) : nullptr, one.accumulate});
    }
    const Ops::Rows rows{x, Ops::Rows::Form::gelu};
    ops.products(products, rows, T);
    for (size_t i = 0; i < products.size(); ++i) {
      Ops::Product one = products[i];
      one.y = *alone[i];
      ops.products({&one, 1}, rows, T);
      same_bits("product " + std::to_string(i) + " of " + std::to_string(T) + " rows", y[i]->values(),
                alone[i]->values());
    }
  }
  ops.products({}, {}, 5);
  const OnDevice<float> x(ops, 64), y(ops, 64);
  const auto narrow = ops.matrix({Type::Q8_0, 1, 32, weights(Type::Q8_0, 1, 32, 1).data()}, "weights"),
             wide = ops.matrix({Type::Q8_0, 1, 64, weights(Type::Q8_0, 1, 64, 1).data()}, "weights");
  const Ops::Product unequal[] = {{y, narrow.get()}, {y + 1, wide.get()}};
  CHECK_ERROR(code::internal, "32 and of 64 columns", ops.products(unequal, {x}, 1));
}

#ifdef MINIGPT4_SIMT_HOOKS
TEST("cuda: products of the same rows with weights of one type are one launch") {
  const int64_t cols = 256;
  Ops& ops = device();
  for (Type type : {Type::F16, Type::BF16, Type::Q4_0, Type::Q6_K}) {
    for (int T : {1, 40}) {
      std::vector<std::unique_ptr<Matrix>> w;
      std::vector<std::unique_ptr<OnDevice<float>>> y;
      std::vector<Ops::Product> products;
      for (const int64_t rows : {64, 16, 16}) {
        w.push_back(ops.matrix({type, rows, cols, weights(type, rows, cols, 5).data()}, "weights"));
        y.push_back(std::make_unique<OnDevice<float>>(ops, size_t(T * rows)));
        products.push_back({*y.back(), w.back().get()});
      }
      const OnDevice<float> x(ops, normal(size_t(T * cols), 3));
      simt::begin_traffic();
      ops.products(products, {x}, T);
      uint64_t launches = 0;
      for (const simt::KernelTraffic& kernel : simt::take_traffic()) launches += kernel.launches;
      CHECK_EQUAL(launches, uint64_t(2));  // one prepares the rows
    }
  }
}
#endif

TEST("cuda: integer sums hold at the extremes of codes and activations") {
  for (Type type : block_types()) {
    for (const auto& [ops, T, rows] :
         {std::tuple{&device(), 2, 16}, std::tuple{&device(), 40, 16}, std::tuple{&one_multiprocessor(), 64, 128}}) {
      const Case c{T, rows, 256};
      for (int fill : {0x00, 0xff, 0x80, 0x7f}) {
        Inputs in = inputs(c, random_blocks(type, c.rows, c.cols, 10));
        // all bytes the same but d and the minimum's factor, which keep sane values: before the codes, or (K types but Q4_K
        // and Q5_K) behind them
        const size_t block = info(type).block_bytes;
        const bool minimum =
            type == Type::Q4_1 || type == Type::Q5_1 || type == Type::Q2_K || type == Type::Q4_K || type == Type::Q5_K;
        const size_t halfs = minimum ? 4 : 2,
                     at = type == Type::Q2_K || type == Type::Q3_K || type == Type::Q6_K ? block - halfs : 0;
        for (size_t i = 0; i < in.w.size(); ++i) {
          if (i % block < at || i % block >= at + halfs) in.w[i] = uint8_t(fill);
        }
        for (size_t i = 0; i < in.x.size(); ++i) in.x[i] = i / size_t(c.cols) % 2 ? -1.0f : 1.0f;
        check_against_double(type, c, in, run(*ops, type, c, in));
      }
    }
  }
}

TEST("cuda: what is not a number is not hidden by rounding activations, nor spread to other rows") {
  for (const auto& [ops, T, rows] :
       {std::tuple{&device(), 3, 16}, std::tuple{&device(), 40, 16}, std::tuple{&one_multiprocessor(), 64, 128}}) {
    const Case c{T, rows, 96};
    Inputs in = inputs(c, weights(Type::Q4_0, c.rows, c.cols, 3));
    const Floats clean = run(*ops, Type::Q4_0, c, in);
    for (float bad : {NAN, INFINITY, -INFINITY}) {
      in.x[size_t(c.cols) + 40] = bad;
      Floats found = run(*ops, Type::Q4_0, c, in);
      for (int64_t r = 0; r < c.rows; ++r) {
        float& y = found[size_t(c.rows + r)];
        CHECK(std::isnan(y));
        y = clean[size_t(c.rows + r)];
      }
      same_bits("the other rows", found, clean);
    }
  }
  const Case c{1, 16, 64};
  Inputs in = inputs(c, weights(Type::Q4_0, c.rows, c.cols, 3));
  in.x.assign(in.x.size(), 0);
  for (float y : run(device(), Type::Q4_0, c, in)) CHECK_EQUAL(y, 0.0f);
}

TEST("cuda: memory that products with quantized weights move") {
  if (!device_case::counts_traffic()) throw check::Skip{"the emulator's hook build alone counts traffic"};
  for (Type type : block_types()) {
    for (const auto& [ops, T, kernel] :
         {std::tuple{&device(), 1, "decode_quantized"}, std::tuple{&device(), 8, "decode_quantized"},
          std::tuple{&device(), 32, "decode_quantized"}, std::tuple{&device(), 128, "decode_quantized"},
          std::tuple{&one_multiprocessor(), 128, "prefill_quantized"}}) {
      const int rows = 512;
      const Case c{T, rows, 1024};
      const Inputs in = inputs(c, weights(type, c.rows, c.cols, 6));
      const auto w = ops->matrix({type, c.rows, c.cols, in.w.data()}, "weights");
      // the weights and the prepared rows (10 bits a value, in tiles of 8) once, y
      const double bytes = double(w->bytes) + (T + 7) / 8 * 8 * c.cols * 1.25 + double(T * rows) * 4;
      device_case::traffic(kernel, {.bytes = bytes * 1.001, .reason = ""}, [&] { run(*ops, c, in, *w, 0, T); });
    }
  }
}
