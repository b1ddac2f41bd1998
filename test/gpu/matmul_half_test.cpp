// Products with F16 and BF16 weights on a device: against sums in double precision of the rounded activations, and the same
// bits for a row whatever else is computed with it.
#include "float_product_case.h"

using namespace minigpt4;
using namespace ops_case;
using namespace float_product_case;

namespace {

struct Case {
  int T;
  int64_t rows, cols;
  bool bias = false;
  Accumulate accumulate = Accumulate::no;
};

std::string title(Type type, const Case& c) {
  return std::string("matmul ") + name(type) + " " + std::to_string(c.T) + " x " + std::to_string(c.cols) + " -> " +
         std::to_string(c.rows);
}

struct Inputs {
  std::vector<uint8_t> w;
  Floats x, bias, y;
};
Inputs inputs(Type type, const Case& c) {
  return {weights(type, c.rows, c.cols, 21), normal(size_t(c.T * c.cols), 22), normal(size_t(c.rows), 23),
          normal(size_t(c.T * c.rows), 24)};
}

/// `count` rows from `first` on.
Floats run(Ops& ops, Type type, const Case& c, const Inputs& in, int first, int count) {
  const auto matrix = ops.matrix({type, c.rows, c.cols, in.w.data()}, "weights");
  const OnDevice<float> x(ops, Floats(in.x.begin() + first * c.cols, in.x.begin() + (first + count) * c.cols)),
      y(ops, Floats(in.y.begin() + first * c.rows, in.y.begin() + (first + count) * c.rows)), bias(ops, in.bias);
  ops.matmul(y, *matrix, x, c.bias ? static_cast<float*>(bias) : nullptr, count, c.accumulate);
  return y.values();
}

void check_sums(Ops& ops, Type type, const Case& c) {
  const Inputs in = inputs(type, c);
  // products of 11-bit numbers are exact in float32: the additions alone round
  Sums expected = sums(rounded(in.x, type), decoded(type, in.w, c.rows, c.cols), c.T, c.rows, c.cols);
  Doubles allowed(expected.sum.size());
  for (size_t i = 0; i < allowed.size(); ++i) {
    const double bias = c.bias ? in.bias[i % size_t(c.rows)] : 0,
                 before = c.accumulate == Accumulate::yes ? in.y[i] : 0;
    expected.sum[i] += bias + before;
    allowed[i] = matrix_unit_error(c.cols) * (expected.size[i] + std::fabs(bias) + std::fabs(before));
  }
  near(title(type, c), run(ops, type, c, in, 0, c.T), expected.sum, allowed);
}

const Type kTypes[] = {Type::F16, Type::BF16};

}  // namespace

TEST("cuda: matmul with half weights") {
  for (Type type : kTypes) {
    for (const Case& c : {Case{1, 33, 40}, Case{1, 64, 1408, true}, Case{3, 16, 8, true, Accumulate::yes},
                          Case{8, 96, 88, true}, Case{9, 33, 264, false, Accumulate::yes}, Case{17, 40, 128},
                          Case{31, 7, 520, true}, Case{32, 1, 1}, Case{33, 33, 40, true},
                          Case{50, 70, 33, true, Accumulate::yes}, Case{130, 130, 160, false, Accumulate::yes}}) {
      check_sums(device_case::device(), type, c);
    }
  }
}

TEST("cuda: every tile of matmul with half weights") {
  // one multiprocessor: 128 x 256 and 128 x 128 where they are filled, the smaller ones where much would be left over
  for (Type type : kTypes) {
    for (const Case& c :
         {Case{256, 128, 72, true}, Case{250, 250, 40, true, Accumulate::yes}, Case{120, 120, 168, true},
          Case{383, 128, 40}, Case{60, 60, 96, true}, Case{64, 30, 200, true, Accumulate::yes}}) {
      check_sums(one_multiprocessor(), type, c);
    }
  }
#ifndef MINIGPT4_SIMT
  for (Type type : kTypes) {  // each tile in turn on a card of some hundred multiprocessors, several blocks for each
    for (const Case& c : {Case{4112, 3080, 88, true}, Case{1100, 4096, 136, true}, Case{8224, 1408, 1408, true}}) {
      check_sums(device_case::device(), type, c);
    }
  }
#endif
}

TEST("cuda: a row of matmul with half weights does not depend on its batch") {
  for (Type type : kTypes) {
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
      const Case c{257, 136, 424, true, accumulate};
      const Inputs in = inputs(type, c);
      const Floats together = run(device_case::device(), type, c, in, 0, c.T);
      const auto rows = [&](int first, int count) {
        return Floats(together.begin() + first * c.rows, together.begin() + (first + count) * c.rows);
      };
      for (int T : {1, 3, 8, 9, 31, 33, 64, 130}) {
        same_bits(title(type, c) + ", the last " + std::to_string(T),
                  run(device_case::device(), type, c, in, c.T - T, T), rows(c.T - T, T));
      }
      for (int T : {33, 128, 256, 257}) {  // the larger tiles
        same_bits(title(type, c) + ", another tile, " + std::to_string(T), run(one_multiprocessor(), type, c, in, 0, T),
                  rows(0, T));
      }
    }
  }
}

TEST("cuda: half weights keep what is not a number, infinite or very small") {
  // 65504 is the largest half: activations beyond become infinite; 2^-24 is the smallest
  const int64_t rows = 16, cols = 32;
  Floats w(size_t(rows * cols), 0.0f), x(size_t(8 * cols), 0.0f);
  for (int64_t r = 0; r < rows; ++r) w[size_t(r * cols + r)] = 1;
  const Floats special = {65504, 65520, -1e9f, 0x1p-24f, 0x1p-26f, INFINITY, 3, -0.0f};
  for (size_t t = 0; t < 8; ++t) x[t * cols + t] = special[t];
  const std::vector<uint8_t> halves = [&] {
    std::vector<uint8_t> bytes;
    for (float value : w) {
      const uint16_t half = float_to_half(value);
      bytes.push_back(uint8_t(half));
      bytes.push_back(uint8_t(half >> 8));
    }
    return bytes;
  }();
  Ops& ops = device_case::device();
  const auto matrix = ops.matrix({Type::F16, rows, cols, halves.data()}, "weights");
  const OnDevice<float> in(ops, x), out(ops, size_t(8 * rows));
  ops.matmul(out, *matrix, in, nullptr, 8, Accumulate::no);
  const Floats y = out.values();
  for (size_t t : {0u, 3u, 4u, 6u, 7u}) CHECK_EQUAL(y[t * rows + t], rounded(special[t], Type::F16));
  CHECK_EQUAL(y[0 * rows + 1], 0.0f);
  for (size_t t : {1u, 2u, 5u}) CHECK(!std::isfinite(y[t * rows + t]));
}

TEST("cuda: memory of matmul with half weights") {
  const auto product = [](Ops& ops, const Case& c) {
    const Inputs in = inputs(Type::F16, c);
    run(ops, Type::F16, c, in, 0, c.T);
  };
  // decoding reads weights once, eight rows' worth of activations for every 32 outputs, and writes whole sectors
  const Case one{1, 256, 1024};
  device_case::traffic("matmul_half_few",
                       {.bytes = 1.05 * (256 * 1024 * 2 + 8 * 1024 * 2 * 256.0 / 32 + 256 * 4), .reason = {}},
                       [&] { product(device_case::device(), one); });
  const Case few{32, 96, 512, true, Accumulate::yes};
  device_case::traffic("matmul_half_few", {}, [&] { product(device_case::device(), few); });
  // a tile of 128 outputs by 256 tokens reads each operand once
  const Case many{256, 256, 416, true, Accumulate::yes};
  device_case::traffic("matmul_half_many",
                       {.bytes = 1.05 * (2.0 * (256 + 2 * 256) * 416 + 2.0 * 256 * 256 * 4), .reason = {}},
                       [&] { product(one_multiprocessor(), many); });
  const Case small{64, 64, 512};
  device_case::traffic("matmul_half_many", {}, [&] { product(device_case::device(), small); });
}
