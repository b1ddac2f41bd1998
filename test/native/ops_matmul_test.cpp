// matmul and embed with every weight type, against sums in double precision.
#include <cmath>
#include <cstring>

#include "check.h"
#include "core/blocks.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

struct Case {
  int T;
  int64_t rows, cols;
  bool bias = false;
  Accumulate accumulate = Accumulate::no;
};

std::string title(Type type, const Case& c) {
  std::ostringstream text;
  text << "matmul " << name(type) << " " << c.T << " x " << c.cols << " -> " << c.rows;
  return text.str();
}

struct Inputs {
  std::vector<uint8_t> w;
  Floats x, bias, y;
};

Floats run_matmul(Ops& ops, Type type, const Case& c, const Inputs& in, int first = 0, int count = -1) {
  const int T = count < 0 ? c.T : count;
  const auto matrix = ops.matrix({type, c.rows, c.cols, in.w.data()}, "weights");
  const OnDevice<float> x(ops, Floats(in.x.begin() + first * c.cols, in.x.begin() + (first + T) * c.cols)),
      bias(ops, in.bias);
  const OnDevice<float> y(ops, Floats(in.y.begin() + first * c.rows, in.y.begin() + (first + T) * c.rows));
  ops.matmul(y, *matrix, x, c.bias ? static_cast<float*>(bias) : nullptr, T, c.accumulate);
  return y.values();
}

Inputs inputs(const Case& c, std::vector<uint8_t> w) {
  return {std::move(w), normal(size_t(c.T * c.cols), 11), normal(size_t(c.rows), 12), normal(size_t(c.T * c.rows), 13)};
}

/// Activations as the contract of matmul has them with quantized weights: per 32, d = largest / 127, to nearest even.
struct Rounded {
  std::vector<int> q;
  std::vector<float> d;
};
Rounded round_activations(const Floats& x) {
  Rounded of{std::vector<int>(x.size()), Floats(x.size() / 32)};
  for (size_t b = 0; b < of.d.size(); ++b) {
    float most = 0;
    for (size_t i = 0; i < 32; ++i) most = std::max(most, std::fabs(x[32 * b + i]));
    of.d[b] = most / 127;
    for (size_t i = 0; i < 32; ++i) of.q[32 * b + i] = most > 0 ? int(std::nearbyint(x[32 * b + i] * (127 / most))) : 0;
  }
  return of;
}

void check_against_double(Type type, const Case& c, const Inputs& in, const Floats& found, bool halves = false) {
  const Floats w = decoded(type, in.w, c.rows, c.cols);
  const Rounded rounded = is_quantized(type) ? round_activations(in.x) : Rounded{};
  std::vector<double> expected(size_t(c.T * c.rows)), allowed(expected.size()), unrounded, unrounded_allowed;
  unrounded = unrounded_allowed = expected;
  for (int t = 0; t < c.T; ++t) {
    for (int64_t r = 0; r < c.rows; ++r) {
      const size_t at = size_t(t * c.rows + r);
      const double start = (c.bias ? in.bias[r] : 0.0) + (c.accumulate == Accumulate::yes ? in.y[at] : 0.0);
      double sum = 0, size = std::fabs(start), largest = 0, exact = 0, lost = 0;
      for (int64_t k = 0; k < c.cols; ++k) {
        const size_t i = size_t(t * c.cols + k);
        const double weight = w[size_t(r * c.cols + k)];
        exact += weight * in.x[i];
        if (!is_quantized(type)) {
          sum += weight * in.x[i];
          size += std::fabs(weight * in.x[i]);
          continue;
        }
        if (k % 256 == 0) {
          largest = 0;
          for (int64_t j = k; j < std::min(k + 256, c.cols); ++j)
            largest = std::max(largest, std::fabs(double(w[r * c.cols + j])));
        }
        const double d = rounded.d[i / 32];
        sum += weight * d * rounded.q[i];
        size += 4 * largest * d * std::abs(rounded.q[i]);
        lost += std::fabs(weight) * d / 2;
      }
      expected[at] = sum + start;
      unrounded[at] = exact + start;
      // Float weights: a value is in at most min(cols, 256) roundings of its chain, as many additions as there are
      // chains, and the two of bias and y. Quantized: as many additions as blocks, 8 roundings within a block (scales,
      // two products, sums), none of whose terms is more than 4 times what the block's largest weight would give (codes
      // reach from 0 to twice the largest, the minimum likewise). Float weights in halves: 16 roundings in a chain, the two
      // chains' sum, three additions to the sum for each 32 values, and what halves lose.
      const double roundings = is_quantized(type) ? double(c.cols) / 32 + 10
                               : halves           ? double(17 + 3 * ((c.cols + 31) / 32) + 2)
                                                  : double(std::min<int64_t>(c.cols, 256) + c.cols / 256 + 4);
      allowed[at] = (roundings * kRounding + (halves ? halves_rounding(type) : 0)) * size;
      // Rounding an activation moves it by at most d / 2 (and a float32 rounding of the quotient).
      unrounded_allowed[at] = allowed[at] + lost * 1.0001;
    }
  }
  near(title(type, c), found, expected, allowed);
  if (is_quantized(type)) near(title(type, c) + " without rounded activations", found, unrounded, unrounded_allowed);
}

void check_case(Type type, const Case& c, std::vector<uint8_t> w) {
  const Inputs in = inputs(c, std::move(w));
  const auto run = [&](Ops& ops) { return run_matmul(ops, type, c, in); };
  if (is_quantized(type)) return check_against_double(type, c, in, on_every_level(title(type, c), run));
  on_every_kind_of_level(title(type, c), run,
                         [&](const Floats& found, bool halves) { check_against_double(type, c, in, found, halves); });
}

}  // namespace

TEST("ops: matmul with float weights") {
  for (Type type : float_types()) {
    for (const Case& c :
         {Case{1, 100, 264}, Case{257, 88, 264, true}, Case{7, 33, 999, true, Accumulate::yes}, Case{12, 16, 256},
          Case{13, 50, 513, false, Accumulate::yes}, Case{300, 5, 40}, Case{2, 1, 1}, Case{5, 700, 31}}) {
      check_case(type, c, weights(type, c.rows, c.cols, 5));
    }
  }
}

TEST("ops: matmul with quantized weights") {
  for (Type type : block_types()) {
    const bool super = info(type).block_values == 256;
    for (const Case& c :
         {Case{1, 100, 512}, Case{37, 40, super ? 768 : 352, true}, Case{257, 17, 256, false, Accumulate::yes},
          Case{4, 33, super ? 256 : 32, true, Accumulate::yes}, Case{270, 3, 256},
          Case{15, 90, 256, true, Accumulate::yes},  // so few products that pieces may have three groups
          // a single row, of which four long groups are taken at once
          Case{1, 200, 512}, Case{1, 120, super ? 9472 : 9376, true}}) {
      check_case(type, c, weights(type, c.rows, c.cols, 6));
      check_case(type, c, random_blocks(type, c.rows, c.cols, 7));
    }
  }
}

TEST("ops: a row of matmul does not depend on its batch") {
  std::vector<Type> types = block_types();
  types.insert(types.end(), float_types().begin(), float_types().end());
  for (Type type : types) {
    const Case c{21, 90, 512, true, Accumulate::yes};  // pieces of three groups, where two threads share it
    const Inputs in = inputs(c, weights(type, c.rows, c.cols, 8));
    for (const std::string& level : cpu_levels()) {
      Ops& ops = cpu(level, 2);
      const Floats together = run_matmul(ops, type, c, in);
      for (int t = 0; t < c.T; ++t) {
        const Floats row(together.begin() + t * c.rows, together.begin() + (t + 1) * c.rows);
        if (!same_bits(title(type, c) + " on " + level + ", a row alone", run_matmul(ops, type, c, in, t, 1), row))
          break;
      }
    }
  }
}

TEST("ops: integer sums hold at the extremes of codes and activations") {
  // All activations 127 or -127 and all codes at an end of their range: any saturation or overflow would show.
  for (Type type : block_types()) {
    const Case c{2, 16, 256};
    for (int fill : {0x00, 0xff, 0x80, 0x7f}) {
      Inputs in = inputs(c, random_blocks(type, c.rows, c.cols, 9));
      std::vector<uint8_t> filled(in.w.size(), uint8_t(fill));
      const std::vector<uint8_t> other = random_blocks(type, c.rows, c.cols, 10);
      // d and m are what random_blocks sets whatever the seed: bytes that are sane; keep them by type
      const size_t block = info(type).block_bytes;
      for (size_t at = 0; at < filled.size(); at += block) {
        const size_t d = type == Type::Q2_K ? 80 : type == Type::Q3_K ? 108 : type == Type::Q6_K ? 208 : 0;
        const size_t n =
            (type == Type::Q4_0 || type == Type::Q5_0 || type == Type::Q8_0 || type == Type::Q3_K || type == Type::Q6_K)
                ? 2
                : 4;
        std::memcpy(&filled[at + d], &other[at + d], n);
      }
      in.w = filled;
      for (size_t i = 0; i < in.x.size(); ++i) in.x[i] = i < 256 ? 1.0f : -1.0f;
      check_against_double(type, c, in,
                           on_every_level(title(type, c), [&](Ops& ops) { return run_matmul(ops, type, c, in); }));
    }
  }
}

TEST("ops: what is not a number is not hidden by rounding activations") {
  const Case c{1, 16, 64};
  Inputs in = inputs(c, weights(Type::Q4_0, c.rows, c.cols, 3));
  for (float bad : {NAN, INFINITY}) {
    in.x[40] = bad;
    for (const std::string& level : cpu_levels()) CHECK(std::isnan(run_matmul(cpu(level, 1), Type::Q4_0, c, in)[3]));
  }
  in.x.assign(in.x.size(), 0);
  for (const std::string& level : cpu_levels()) {
    const Floats zeros = run_matmul(cpu(level, 1), Type::Q4_0, c, in);
    CHECK_EQUAL(zeros[3], 0.0f);
  }
}

TEST("ops: embed gives the rows' values exactly") {
  std::vector<Type> types = block_types();
  types.insert(types.end(), float_types().begin(), float_types().end());
  for (Type type : types) {
    const int64_t rows = 37, cols = 512;
    for (const bool random : {false, true}) {
      if (random && !is_quantized(type)) continue;
      const std::vector<uint8_t> w = random ? random_blocks(type, rows, cols, 4) : weights(type, rows, cols, 4);
      const std::vector<int32_t> ids{36, 0, 15, 16, 16, 31, 7};
      Floats expected;
      const Floats values = decoded(type, w, rows, cols);
      for (int32_t id : ids)
        expected.insert(expected.end(), values.begin() + id * cols, values.begin() + (id + 1) * cols);
      for (int threads : {1, 3}) {
        Ops& ops = cpu(cpu_levels().back(), threads);
        const auto matrix = ops.matrix({type, rows, cols, w.data()}, "weights");
        const OnDevice<int32_t> on_device(ops, ids);
        const OnDevice<float> y(ops, ids.size() * cols);
        ops.embed(y, *matrix, on_device, int(ids.size()));
        const Floats found = y.values();
        size_t differ = 0;
        for (size_t i = 0; i < found.size(); ++i) differ += !(found[i] == expected[i]);
        if (differ)
          check::failed(__FILE__, __LINE__, std::string(name(type)) + ": values differ: " + std::to_string(differ));
      }
    }
  }
}

TEST("ops: a packed matrix is near the size of its blocks") {
  for (Type type : block_types()) {
    Ops& ops = cpu("scalar", 1);
    const std::vector<uint8_t> w = random_blocks(type, 64, 4096, 2);
    const size_t bytes = ops.matrix({type, 64, 4096, w.data()}, "weights")->bytes;
    CHECK_EQUAL(ops.matrix_bytes(type, 64, 4096), bytes);
    const double ratio = double(bytes) / double(w.size());
    // Q3_K: 29 · 64 bytes for 16 rows of 256 values, 110 each in the file; Q4_K 37 · 64 for 144 each
    if (ratio > (type == Type::Q3_K ? 1.055 : 1.03))
      check::failed(__FILE__, __LINE__, std::string(name(type)) + ": ratio " + std::to_string(ratio));
  }
}

TEST("ops: matrices that cannot be") {
  Ops& ops = cpu("scalar", 1);
  const std::vector<uint8_t> w(1000);
  CHECK_ERROR(code::shape, "", ops.matrix({Type::Q4_0, 2, 40, w.data()}, "weights"));
  CHECK_ERROR(code::shape, "rows", ops.matrix({Type::F32, 0, 40, w.data()}, "weights"));
}
