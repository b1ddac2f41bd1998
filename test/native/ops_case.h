// What the tests of ops share: seeded data, memory of a backend, and one run on every level and thread count whose
// results must be the same in every bit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "ops/ops.h"

namespace ops_case {

using minigpt4::Ops;
using minigpt4::Type;
using Floats = std::vector<float>;

/// Half a float32's distance from 1 to the next number: the relative error of one rounding.
inline constexpr double kRounding = 0x1p-24;

/// n values, normally distributed.
Floats normal(size_t n, uint64_t seed, float scale = 1);
/// Random blocks (every bit of codes and sub-scales random, d and m of ordinary size): rows of `cols` values.
std::vector<uint8_t> random_blocks(Type type, int64_t rows, int64_t cols, uint64_t seed);
/// Normally distributed rows in the type, by encode_row where that is possible, else random_blocks.
std::vector<uint8_t> weights(Type type, int64_t rows, int64_t cols, uint64_t seed);
/// The values that rows of blocks stand for.
Floats decoded(Type type, const std::vector<uint8_t>& blocks, int64_t rows, int64_t cols);

const std::vector<Type>& float_types();
const std::vector<Type>& block_types();

/// Memory of a backend with these values in it.
template <class Value>
class OnDevice {
 public:
  OnDevice(Ops& ops, const std::vector<Value>& values) : ops_(ops), count_(values.size()) {
    memory_ = static_cast<Value*>(ops.allocate(count_ * sizeof(Value), "test"));
    ops.upload(memory_, values.data(), count_ * sizeof(Value));
  }
  OnDevice(Ops& ops, size_t count, Value value = Value()) : OnDevice(ops, std::vector<Value>(count, value)) {}
  ~OnDevice() { ops_.release(memory_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  operator Value*() const { return memory_; }
  std::vector<Value> values() const {
    std::vector<Value> host(count_);
    ops_.download(host.data(), memory_, count_ * sizeof(Value));
    return host;
  }

 private:
  Ops& ops_;
  size_t count_;
  Value* memory_ = nullptr;
};

/// A backend of that level and number of threads; made once a test.
Ops& cpu(const std::string& level, int threads);
/// Runs on every level with 1, 2 and 3 threads, fails the test where a bit differs, returns the first result.
Floats on_every_level(const std::string& what, const std::function<Floats(Ops&)>& run);
/// True of a level that multiplies float weights as bf16 halves (AMX and its models): other bits, and less exact.
bool in_halves(const std::string& level);
/// How much of a product of two values may then be missing: what low loses of a float32 activation, of a float32 weight, and
/// (a BF16 weight has no low) low times low, each at most 2^-16 of the product.
inline double halves_rounding(Type weight) {
  return 0x1p-16 * (weight == Type::BF16 ? 1 : weight == Type::F16 ? 2 : 3);
}
/// For what has products with float weights in it: each kind of levels is run as on_every_level does it, and has its result
/// checked: once the levels with float32 products, once those in halves (the instructions apart from their models: which
/// order a chip adds in, only its maker says).
void on_every_kind_of_level(const std::string& what, const std::function<Floats(Ops&)>& run,
                            const std::function<void(const Floats& found, bool halves)>& check);
/// True if every bit is the same; else fails the test with the first difference.
bool same_bits(const std::string& what, const Floats& found, const Floats& expected);
/// Fails the test where |found - expected| > allowed, element by element; NaN always fails.
void near(const std::string& what, const Floats& found, const std::vector<double>& expected,
          const std::vector<double>& allowed);

}  // namespace ops_case
