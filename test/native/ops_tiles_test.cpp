// Products on a matrix unit or its model: every number of rows around a tile's, values at float32's ends, and that no thread
// keeps its tiles.
#include <cmath>
#include <cstring>

#include "check.h"
#include "core/blocks.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

/// Of the calling thread (amx_model_scalar.cpp).
bool amx_model_in_use();

namespace {

/// The counts of rows of which a product might take each its own way: about one tile, two and three, and a picture's.
std::vector<int> row_counts() {
  std::vector<int> counts;
  for (int T = 1; T <= 40; ++T) counts.push_back(T);
  counts.insert(counts.end(), {47, 48, 49, 257, 300});
  return counts;
}

std::vector<std::string> levels_in_halves() {
  std::vector<std::string> levels;
  for (const std::string& level : cpu_levels()) {
    if (in_halves(level)) levels.push_back(level);
  }
  return levels;
}

struct Product {
  Type type;
  int64_t rows, cols;
  std::vector<uint8_t> w;
  Floats x;
};
Product product(Type type, int64_t rows, int64_t cols, int T) {
  return {type, rows, cols, weights(type, rows, cols, 41), normal(size_t(T * cols), 42)};
}
Floats run(Ops& ops, const Product& p, int T) {
  const auto matrix = ops.matrix({p.type, p.rows, p.cols, p.w.data()}, "weights");
  const OnDevice<float> x(ops, Floats(p.x.begin(), p.x.begin() + T * p.cols)), y(ops, size_t(T * p.rows));
  ops.matmul(y, *matrix, x, nullptr, T, Accumulate::no);
  return y.values();
}
/// Every count of rows has the bits of the same rows among all.
void check_row_counts(const Product& p, const std::string& level, const Floats& all) {
  for (const int T : row_counts()) {
    const std::string what = std::string(name(p.type)) + ", " + std::to_string(T) + " rows on " + level;
    if (!same_bits(what, run(cpu(level, 1), p, T), Floats(all.begin(), all.begin() + T * p.rows))) return;
  }
}

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

TEST("ops: quantized products have the same bits in tiles, whatever the number of rows") {
  for (Type type : block_types()) {
    // 17 or 24 blocks: more than are unpacked at a time, and a step that is not full; 5 groups, one more than a chunk's
    const Product p = product(type, 77, info(type).block_values == 256 ? 768 : 544, 300);
    const Floats all = run(cpu("scalar", 2), p, 300);
    for (const std::string& level : levels_in_halves()) check_row_counts(p, level, all);
  }
}

TEST("ops: float products have the same bits in tiles, whatever the number of rows") {
  for (Type type : float_types()) {
    for (const int64_t cols : {1, 45, 300}) {
      const Product p = product(type, 53, cols, 300);
      for (const std::string& level : levels_in_halves()) check_row_counts(p, level, run(cpu(level, 2), p, 300));
    }
  }
}

TEST("ops: what is not finite stays so, in its own row and output alone") {
  const uint32_t kBad[] = {0x7fc00000, 0xffc00000, 0x7fffffff, 0xffffffff,
                           0x7f800001, 0xff800001, 0x7f800000, 0xff800000};
  const int T = 19;
  const int64_t bad_t = 17, bad_k = 33, bad_row = 20;
  for (Type type : float_types()) {
    Product clean = product(type, 37, 40, T);
    for (const std::string& level : cpu_levels()) {
      const Floats expected = run(cpu(level, 1), clean, T);
      for (const uint32_t bits : kBad) {
        Product p = clean;
        p.x[size_t(bad_t * p.cols + bad_k)] = float_of(bits);
        Floats found = run(cpu(level, 1), p, T);
        for (int64_t r = 0; r < p.rows; ++r) {
          float& value = found[size_t(bad_t * p.rows + r)];
          CHECK(!std::isfinite(value));
          value = expected[size_t(bad_t * p.rows + r)];
        }
        same_bits(level + ": rows beside one that is not finite", found, expected);

        p = clean;
        const size_t at = size_t(bad_row * p.cols + bad_k);
        const uint16_t half =
                           uint16_t(bits >> 31 << 15 | 0x7c00 | (bits & 0x7fffff ? 0x200 | (bits >> 13 & 0x3ff) : 0)),
                       brain = uint16_t(bits >> 16 | (bits & 0xffff ? 1 : 0));
        if (type == Type::F32) std::memcpy(&p.w[4 * at], &bits, 4);
        if (type == Type::F16) std::memcpy(&p.w[2 * at], &half, 2);
        if (type == Type::BF16) std::memcpy(&p.w[2 * at], &brain, 2);
        found = run(cpu(level, 1), p, T);
        for (int64_t t = 0; t < T; ++t) {
          float& value = found[size_t(t * p.rows + bad_row)];
          CHECK(!std::isfinite(value));
          value = expected[size_t(t * p.rows + bad_row)];
        }
        same_bits(level + ": outputs beside one that is not finite", found, expected);
      }
    }
  }
}

TEST("ops: halves of the largest and the smallest values") {
  // One value at a time, times 1: the product is the value but for its 17th bit on, or (of what bf16 has as subnormal) for
  // 2^-126.
  const float largest = 0x1.fffffep127f, smallest = 0x1p-149f;
  for (const float x : {largest, -largest, 0x1.fefffep127f, 0x1.ff0002p127f, 0x1p-126f, 0x1.00ff02p-126f, 0x1.8p-127f,
                        smallest, 0x1.fffffep-118f, 0x1.0101p-110f, 1.0f, 0x1.fffffep0f, 0x1.00fffep0f, 0x1.01p0f}) {
    for (Type type : {Type::F32, Type::F16, Type::BF16}) {
      Floats ones(16 * 3, 0);
      ones[0] = 1;
      std::vector<uint8_t> w(row_bytes(type, 3) * 16);
      for (int64_t r = 0; r < 16; ++r) encode_row(type, &ones[size_t(r * 3)], &w[size_t(r) * row_bytes(type, 3)], 3);
      const Product p{type, 16, 3, w, {x, 0, 0}};
      for (const std::string& level : levels_in_halves()) {
        CHECK_NEAR(run(cpu(level, 1), p, 1)[0], x, 0x1p-16 * std::fabs(double(x)) + 0x1p-126);
      }
    }
  }
}

#if defined(__x86_64__)  // elsewhere no test runs on the model
TEST("ops: no thread keeps its tiles") {
  for (Type type : {Type::Q4_0, Type::Q6_K, Type::F32, Type::BF16}) {
    const Product p = product(type, 37, 256, 20);
    run(cpu("amx-model", 1), p, 20);  // with one thread, which is this one
    CHECK(!amx_model_in_use());
  }
}
#endif
