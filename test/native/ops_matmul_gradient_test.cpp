// matmul_dx with every weight type, matmul_dw and bias_db, against sums in double precision.
#include <cmath>

#include "check.h"
#include "finite_difference.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

struct Case {
  int T;
  int64_t rows, cols;
  Accumulate accumulate = Accumulate::no;
};

std::string title(Type type, const Case& c) {
  std::ostringstream text;
  text << "matmul_dx " << name(type) << " " << c.T << " x " << c.rows << " -> " << c.cols;
  return text.str();
}

std::vector<Type> every_type() {
  std::vector<Type> types = float_types();
  types.insert(types.end(), block_types().begin(), block_types().end());
  return types;
}

struct Inputs {
  std::vector<uint8_t> w;
  Floats dy, dx;
};
Inputs inputs(const Case& c, std::vector<uint8_t> w) {
  return {std::move(w), normal(size_t(c.T * c.rows), 71), normal(size_t(c.T * c.cols), 72)};
}

Floats run_dx(Ops& ops, Type type, const Case& c, const Inputs& in, int first = 0, int count = -1) {
  const int T = count < 0 ? c.T : count;
  const auto matrix = ops.matrix({type, c.rows, c.cols, in.w.data()}, "weights");
  const OnDevice<float> dy(ops, Floats(in.dy.begin() + first * c.rows, in.dy.begin() + (first + T) * c.rows));
  const OnDevice<float> dx(ops, Floats(in.dx.begin() + first * c.cols, in.dx.begin() + (first + T) * c.cols));
  ops.matmul_dx(dx, *matrix, dy, T, c.accumulate);
  return dx.values();
}

/// dy · w, and how far rounding may take it: a value is in at most min(rows, 256) roundings of its chain, as many
/// additions as there are chains, and the one of what was there; in halves 16 and one more in a chain, three for each 32
/// values, and what halves lose. The weights' values are exact.
void check_dx(Type type, const Case& c, std::vector<uint8_t> w) {
  const Inputs in = inputs(c, std::move(w));
  const Floats values = decoded(type, in.w, c.rows, c.cols);
  Doubles expected(size_t(c.T * c.cols)), allowed(expected.size()), allowed_halves(expected.size());
  for (int t = 0; t < c.T; ++t) {
    for (int64_t k = 0; k < c.cols; ++k) {
      const size_t at = size_t(t * c.cols + k);
      double sum = c.accumulate == Accumulate::yes ? in.dx[at] : 0.0, size = std::fabs(sum);
      for (int64_t r = 0; r < c.rows; ++r) {
        const double term = double(in.dy[size_t(t * c.rows + r)]) * values[size_t(r * c.cols + k)];
        sum += term;
        size += std::fabs(term);
      }
      expected[at] = sum;
      allowed[at] = double(std::min<int64_t>(c.rows, 256) + c.rows / 256 + 2) * kRounding * size;
      allowed_halves[at] = (double(17 + 3 * ((c.rows + 31) / 32) + 1) * kRounding + halves_rounding(Type::F32)) * size;
    }
  }
  on_every_kind_of_level(
      title(type, c), [&](Ops& ops) { return run_dx(ops, type, c, in); },
      [&](const Floats& found, bool halves) {
        near(title(type, c), found, expected, halves ? allowed_halves : allowed);
      });
}

}  // namespace

TEST("ops: matmul_dx with float weights") {
  for (Type type : float_types()) {
    for (const Case& c : {Case{1, 100, 264}, Case{257, 264, 40}, Case{7, 33, 999, Accumulate::yes}, Case{12, 256, 16},
                          Case{13, 513, 50, Accumulate::yes}, Case{300, 5, 40}, Case{2, 1, 1}, Case{5, 31, 700}}) {
      check_dx(type, c, weights(type, c.rows, c.cols, 73));
    }
  }
}

TEST("ops: matmul_dx with quantized weights") {
  for (Type type : block_types()) {
    const int64_t block = info(type).block_values;
    for (const Case& c : {Case{1, 100, 512}, Case{37, 270, block, Accumulate::yes}, Case{257, 257, block},
                          Case{4, 1, 3 * block}, Case{270, 17, 256}}) {
      check_dx(type, c, weights(type, c.rows, c.cols, 74));
      check_dx(type, c, random_blocks(type, c.rows, c.cols, 75));
    }
  }
}

TEST("ops: matmul_dx of a unit vector is the weight's row in every bit, or in every bit that two bf16 have") {
  for (Type type : every_type()) {
    const Case c{37, 37, 512};
    Inputs in =
        inputs(c, is_quantized(type) ? random_blocks(type, c.rows, c.cols, 76) : weights(type, c.rows, c.cols, 76));
    in.dy.assign(in.dy.size(), 0);
    for (int t = 0; t < c.T; ++t) in.dy[size_t(t * c.rows + t)] = 1;
    Floats expected = decoded(type, in.w, c.rows, c.cols);
    for (float& value : expected) value += 0.0f;  // the sum of 0 and -0 is 0
    Doubles values(expected.begin(), expected.end()), allowed;
    // 16 bits and the sign of the low half: what is cut off is less than 2^-16 of the value
    for (const double value : values) allowed.push_back(0x1p-16 * std::fabs(value));
    on_every_kind_of_level(
        title(type, c), [&](Ops& ops) { return run_dx(ops, type, c, in); },
        [&](const Floats& found, bool halves) {
          if (!halves || type == Type::F16 || type == Type::BF16) {  // which two bf16 are exactly
            same_bits(title(type, c), found, expected);
          } else {
            near(title(type, c), found, values, allowed);
          }
        });
  }
}

TEST("ops: a row of matmul_dx does not depend on its batch") {
  for (Type type : every_type()) {
    const Case c{37, 300, 256, Accumulate::yes};
    const Inputs in = inputs(c, weights(type, c.rows, c.cols, 77));
    for (const std::string& level : cpu_levels()) {
      Ops& ops = cpu(level, 2);
      const Floats together = run_dx(ops, type, c, in);
      for (int t = 0; t < c.T; t += 3) {
        const int n = std::min(t % 2 ? 3 : 1, c.T - t);
        const Floats rows(together.begin() + t * c.cols, together.begin() + (t + n) * c.cols);
        if (!same_bits(title(type, c) + " on " + level + ", rows alone", run_dx(ops, type, c, in, t, n), rows)) break;
      }
    }
  }
}

TEST("ops: matmul_dx is the gradient of matmul") {
  // With float weights matmul is linear in x: where dy and weights are small whole numbers, everything is exact.
  const int T = 3;
  const int64_t rows = 20, cols = 45;
  Floats w(size_t(rows * cols)), dy(size_t(T * rows)), x(size_t(T * cols), 0.0f);
  for (size_t i = 0; i < w.size(); ++i) w[i] = float(int(i * 7 % 11) - 5);
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = float(int(i * 5 % 7) - 3);
  Ops& ops = cpu(cpu_levels().back(), 2);
  const auto matrix = ops.matrix({Type::F32, rows, cols, w.data()}, "weights");
  const OnDevice<float> dy_there(ops, dy), dx(ops, x);
  ops.matmul_dx(dx, *matrix, dy_there, T, Accumulate::no);
  const Floats gradient = dx.values();
  for (size_t i = 0; i < x.size(); i += 4) {
    x[i] = 1;
    const OnDevice<float> x_there(ops, x), y(ops, size_t(T * rows));
    ops.matmul(y, *matrix, x_there, nullptr, T, Accumulate::no);
    const Floats values = y.values();
    float slope = 0;
    for (size_t j = 0; j < values.size(); ++j) slope += values[j] * dy[j];
    CHECK_EQUAL(gradient[i], slope);
    x[i] = 0;
  }
}

TEST("ops: matmul_dw and bias_db") {
  struct Shape {
    int T;
    int64_t rows, cols;
  };
  for (const Shape& s :
       {Shape{1, 1, 1}, Shape{257, 37, 45}, Shape{65, 100, 16}, Shape{130, 13, 999}, Shape{3, 200, 64}}) {
    const Floats dy = normal(size_t(s.T * s.rows), 81), x = normal(size_t(s.T * s.cols), 82),
                 dw = normal(size_t(s.rows * s.cols), 83), db = normal(size_t(s.rows), 84);
    // Parts of the batch one after the other: the bits must be those of the whole.
    const auto run = [&](Ops& ops, const std::vector<int>& ends) {
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
    const Floats whole = on_every_level("matmul_dw", [&](Ops& ops) { return run(ops, {s.T}); });
    same_bits(
        "matmul_dw in parts",
        on_every_level("matmul_dw in parts", [&](Ops& ops) { return run(ops, {s.T / 3, s.T / 3, s.T / 2, s.T}); }),
        whole);
    Doubles expected(whole.size()), allowed(whole.size());
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t k = 0; k <= s.cols; ++k) {  // the last is the bias
        const size_t at = size_t(k < s.cols ? r * s.cols + k : s.rows * s.cols + r);
        double sum = k < s.cols ? dw[at] : db[size_t(r)], size = std::fabs(sum);
        for (int t = 0; t < s.T; ++t) {
          const double term = double(dy[size_t(t * s.rows + r)]) * (k < s.cols ? x[size_t(t * s.cols + k)] : 1.0);
          sum += term;
          size += std::fabs(term);
        }
        expected[at] = sum;
        allowed[at] = s.T * kRounding * size;  // one rounding for each row
      }
    }
    near("matmul_dw and bias_db", whole, expected, allowed);
  }
}

TEST("ops: refill gives a float matrix new values") {
  const int64_t rows = 37, cols = 45;
  const Floats first = normal(size_t(rows * cols), 85), second = normal(size_t(rows * cols), 86),
               x = normal(size_t(cols), 87);
  for (const std::string& level : cpu_levels()) {
    Ops& ops = cpu(level, 3);
    const auto refilled = ops.matrix({Type::F32, rows, cols, first.data()}, "weights");
    const auto fresh = ops.matrix({Type::F32, rows, cols, second.data()}, "weights");
    const OnDevice<float> values(ops, second), in(ops, x), y(ops, size_t(rows)), expected(ops, size_t(rows));
    ops.refill(*refilled, values);
    ops.matmul(y, *refilled, in, nullptr, 1, Accumulate::no);
    ops.matmul(expected, *fresh, in, nullptr, 1, Accumulate::no);
    same_bits("refill", y.values(), expected.values());
    const std::vector<uint8_t> blocks = weights(Type::Q4_0, 2, 32, 88);
    const auto quantized = ops.matrix({Type::Q4_0, 2, 32, blocks.data()}, "weights");
    CHECK_ERROR(code::argument, "Q4_0", ops.refill(*quantized, values));
  }
}
