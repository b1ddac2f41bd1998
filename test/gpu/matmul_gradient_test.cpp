// Gradients of products on a device: matmul_dx with every type of weights, matmul_dw and bias_db.
#include <cmath>

#include "float_product_case.h"

using namespace minigpt4;
using namespace ops_case;
using namespace float_product_case;

namespace {

struct Case {
  int T;
  int64_t rows, cols;
  Accumulate accumulate = Accumulate::no;
};

std::string title(Type type, const Case& c) {
  return std::string("matmul_dx ") + name(type) + " " + std::to_string(c.T) + " x " + std::to_string(c.rows) + " -> " +
         std::to_string(c.cols);
}

std::vector<Type> packed_types() {
  std::vector<Type> types = block_types();
  types.push_back(Type::F16);
  types.push_back(Type::BF16);
  return types;
}

struct Inputs {
  std::vector<uint8_t> w;
  Floats dy, dx;
};
Inputs inputs(Type type, const Case& c) {
  return {weights(type, c.rows, c.cols, 41), normal(size_t(c.T * c.rows), 42), normal(size_t(c.T * c.cols), 43)};
}

/// `count` rows from `first` on.
Floats run(Ops& ops, Type type, const Case& c, const Inputs& in, int first, int count) {
  const auto matrix = ops.matrix({type, c.rows, c.cols, in.w.data()}, "weights");
  const OnDevice<float> dy(ops, Floats(in.dy.begin() + first * c.rows, in.dy.begin() + (first + count) * c.rows)),
      dx(ops, Floats(in.dx.begin() + first * c.cols, in.dx.begin() + (first + count) * c.cols));
  ops.matmul_dx(dx, *matrix, dy, count, c.accumulate);
  return dx.values();
}

/// Against double sums of what the device multiplies: dy and the weights' values rounded to bf16, or as they are (F32).
void check_dx(Ops& ops, Type type, const Case& c, const Inputs& in) {
  const Type factors = type == Type::F32 ? Type::F32 : Type::BF16;
  const Floats values = rounded(decoded(type, in.w, c.rows, c.cols), factors);
  Sums expected = sums(rounded(in.dy, factors), transposed(values, c.rows, c.cols), c.T, c.cols, c.rows);
  Doubles allowed(expected.sum.size());
  for (size_t i = 0; i < allowed.size(); ++i) {
    const double before = c.accumulate == Accumulate::yes ? in.dx[i] : 0;
    expected.sum[i] += before;
    const double relative = type == Type::F32 ? double(c.rows + 1) * kRounding : matrix_unit_error(c.rows);
    allowed[i] = relative * (expected.size[i] + std::fabs(before));
  }
  near(title(type, c), run(ops, type, c, in, 0, c.T), expected.sum, allowed);
}

}  // namespace

TEST("cuda: matmul_dx with float weights") {
  for (Type type : float_types()) {
    for (const Case& c : {Case{1, 100, 264}, Case{65, 264, 40}, Case{7, 33, 999, Accumulate::yes}, Case{12, 256, 16},
                          Case{13, 513, 50, Accumulate::yes}, Case{130, 5, 88}, Case{2, 1, 1}, Case{5, 31, 140}}) {
      check_dx(device_case::device(), type, c, inputs(type, c));
    }
  }
}

TEST("cuda: matmul_dx with quantized weights") {
  for (Type type : block_types()) {
    const int64_t block = info(type).block_values;
    for (const Case& c :
         {Case{1, 100, 512}, Case{37, 130, block, Accumulate::yes}, Case{4, 1, 3 * block}, Case{70, 17, 256}}) {
      check_dx(device_case::device(), type, c, inputs(type, c));
      Inputs random = inputs(type, c);
      random.w = random_blocks(type, c.rows, c.cols, 44);
      check_dx(device_case::device(), type, c, random);
    }
  }
}

TEST("cuda: every tile of matmul_dx") {
  // one multiprocessor: 128 x 256 where it is filled
  for (Type type : packed_types()) {
    for (const Case& c : {Case{250, 200, 256, Accumulate::yes}, Case{256, 33, 256}}) {
      check_dx(one_multiprocessor(), type, c, inputs(type, c));
    }
  }
#ifndef MINIGPT4_SIMT
  for (Type type : packed_types()) {  // several of the largest tiles for each of a card's multiprocessors
    const Case c{2304, 200, 4096, Accumulate::yes};
    check_dx(device_case::device(), type, c, inputs(type, c));
  }
#endif
}

TEST("cuda: matmul_dx of a unit vector is the weight's row") {
  std::vector<Type> types = packed_types();
  types.push_back(Type::F32);
  for (Type type : types) {
    const Case c{37, 37, 512};
    Inputs in = inputs(type, c);
    if (is_quantized(type)) in.w = random_blocks(type, c.rows, c.cols, 45);
    in.dy.assign(in.dy.size(), 0);
    for (int t = 0; t < c.T; ++t) in.dy[size_t(t * c.rows + t)] = 1;
    Floats expected = rounded(decoded(type, in.w, c.rows, c.cols), type == Type::F32 ? Type::F32 : Type::BF16);
    for (float& value : expected) value += 0.0f;  // the sum of 0 and -0 is 0
    same_bits(title(type, c), run(device_case::device(), type, c, in, 0, c.T), expected);
  }
}

TEST("cuda: a row of matmul_dx does not depend on its batch") {
  for (Type type : {Type::Q4_0, Type::Q5_1, Type::Q6_K, Type::F16, Type::BF16, Type::F32}) {
    const Case c{257, 170, 256, Accumulate::yes};
    const Inputs in = inputs(type, c);
    const Floats together = run(device_case::device(), type, c, in, 0, c.T);
    const auto rows = [&](int first, int count) {
      return Floats(together.begin() + first * c.cols, together.begin() + (first + count) * c.cols);
    };
    for (int T : {1, 8, 9, 33, 130}) {
      same_bits(title(type, c) + ", the last " + std::to_string(T), run(device_case::device(), type, c, in, c.T - T, T),
                rows(c.T - T, T));
    }
    same_bits(title(type, c) + ", a larger tile", run(one_multiprocessor(), type, c, in, 0, 256), rows(0, 256));
  }
}

TEST("cuda: matmul_dw and bias_db") {
  struct Shape {
    int T;
    int64_t rows, cols;
  };
  for (const Shape& s : {Shape{1, 1, 1}, Shape{257, 37, 45}, Shape{65, 100, 16}, Shape{33, 13, 999}, Shape{3, 200, 64},
                         Shape{40, 64, 128}}) {
    const Floats dy = normal(size_t(s.T * s.rows), 51), x = normal(size_t(s.T * s.cols), 52),
                 db = normal(size_t(s.rows), 54);
    Floats dw = normal(size_t(s.rows * s.cols), 53);
    dw[0] = -0.0f;  // stays -0 only where nothing is added but zeros of that sign
    // Parts of the batch one after the other: the bits must be those of the whole.
    const auto run = [&](const std::vector<int>& ends) {
      Ops& ops = device_case::device();
      const OnDevice<float> dy_there(ops, dy), x_there(ops, x), weight(ops, dw), bias(ops, db);
      int from = 0;
      for (int to : ends) {
        ops.matmul_dw(weight, dy_there + from * s.rows, x_there + from * s.cols, to - from, s.rows, s.cols);
        ops.bias_db(bias, dy_there + from * s.rows, to - from, int(s.rows));
        from = to;
      }
      Floats both = weight.values();
      const Floats last = bias.values();
      both.insert(both.end(), last.begin(), last.end());
      return both;
    };
    Floats expected = dw;  // the promised chains
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t k = 0; k < s.cols; ++k) {
        float& sum = expected[size_t(r * s.cols + k)];
        for (int t = 0; t < s.T; ++t) sum = std::fma(dy[size_t(t * s.rows + r)], x[size_t(t * s.cols + k)], sum);
      }
    }
    for (int64_t r = 0; r < s.rows; ++r) {
      float sum = db[size_t(r)];
      for (int t = 0; t < s.T; ++t) sum += dy[size_t(t * s.rows + r)];
      expected.push_back(sum);
    }
    const Floats whole = run({s.T});
    same_bits("matmul_dw and bias_db", whole, expected);
    same_bits("matmul_dw and bias_db in parts", run({s.T / 3, s.T / 3, s.T / 2, s.T}), whole);
  }
}

TEST("cuda: a weight's gradient of nothing leaves what is there, -0 too") {
  Ops& ops = device_case::device();
  const Floats zeros(64, 0.0f), negative(64, -0.0f);
  const OnDevice<float> dy(ops, Floats(3, 0.0f)), x(ops, Floats(192, -0.0f)), dw(ops, negative);
  ops.matmul_dw(dw, dy, x, 0, 1, 64);
  same_bits("no rows", dw.values(), negative);
  ops.matmul_dw(dw, dy, x, 3, 1, 64);  // 3 is no multiple of the 16 rows that lie in shared memory together
  same_bits("rows of zeros", dw.values(), negative);
}

TEST("cuda: memory of products' gradients") {
  const auto gradient = [](Ops& ops, Type type, const Case& c) { run(ops, type, c, inputs(type, c), 0, c.T); };
  for (Type type : packed_types()) {
    device_case::traffic("matmul_dx_packed", {}, [&] { gradient(device_case::device(), type, {64, 128, 256}); });
    device_case::traffic("matmul_dx_packed", {},
                         [&] { gradient(one_multiprocessor(), type, {256, 128, 256, Accumulate::yes}); });
  }
  device_case::traffic("float_product", {}, [&] { gradient(device_case::device(), Type::F32, {64, 64, 128}); });
  Ops& ops = device_case::device();
  const OnDevice<float> dy(ops, normal(64 * 64, 61)), x(ops, normal(64 * 128, 62)), dw(ops, normal(64 * 128, 63)),
      db(ops, normal(64, 64));
  // one tile: operands once, dw read and written
  device_case::traffic("float_product", {.bytes = 1.05 * 4 * (64.0 * 64 + 64 * 128 + 2 * 64 * 128), .reason = {}},
                       [&] { ops.matmul_dw(dw, dy, x, 64, 64, 128); });
  device_case::traffic("bias_db_kernel", {}, [&] { ops.bias_db(db, dy, 64, 64); });
}
