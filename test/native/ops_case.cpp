// The shared part of the tests of ops.
#include "ops_case.h"

#include <cmath>
#include <cstring>
#include <map>

#include "check.h"
#include "core/blocks.h"

namespace ops_case {

Floats normal(size_t n, uint64_t seed, float scale) {
  minigpt4::Rng rng(seed);
  Floats values(n);
  for (float& value : values) {
    const double radius = std::sqrt(-2 * std::log(1 - rng.uniform()));
    value = scale * float(radius * std::cos(6.283185307179586 * rng.uniform()));
  }
  return values;
}

std::vector<uint8_t> random_blocks(Type type, int64_t rows, int64_t cols, uint64_t seed) {
  struct Halfs {
    Type type;
    int d, m;  // offsets in the block; -1: none
  };
  static constexpr Halfs kHalfs[] = {
      {Type::Q4_0, 0, -1},  {Type::Q4_1, 0, 2},    {Type::Q5_0, 0, -1}, {Type::Q5_1, 0, 2}, {Type::Q8_0, 0, -1},
      {Type::Q2_K, 80, 82}, {Type::Q3_K, 108, -1}, {Type::Q4_K, 0, 2},  {Type::Q5_K, 0, 2}, {Type::Q6_K, 208, -1}};
  minigpt4::Rng rng(seed);
  std::vector<uint8_t> bytes(size_t(rows) * minigpt4::row_bytes(type, uint64_t(cols)));
  for (uint8_t& byte : bytes) byte = uint8_t(rng.next() >> 32);
  for (const Halfs& of : kHalfs) {
    if (of.type != type) continue;
    const auto put = [&](uint8_t* to, double value) {
      const uint16_t half = minigpt4::float_to_half(float(value));
      std::memcpy(to, &half, 2);
    };
    for (size_t at = 0; at < bytes.size(); at += minigpt4::info(type).block_bytes) {
      put(&bytes[at + of.d], 0.002 + 0.01 * rng.uniform());
      if (of.m >= 0)
        put(&bytes[at + of.m], 0.02 * rng.uniform() - (type == Type::Q4_1 || type == Type::Q5_1 ? 0.02 : 0));
    }
  }
  return bytes;
}

std::vector<uint8_t> weights(Type type, int64_t rows, int64_t cols, uint64_t seed) {
  if (!minigpt4::can_encode(type)) return random_blocks(type, rows, cols, seed);
  const Floats values = normal(size_t(rows * cols), seed, 0.05f);
  const size_t row = minigpt4::row_bytes(type, uint64_t(cols));
  std::vector<uint8_t> bytes(size_t(rows) * row);
  for (int64_t r = 0; r < rows; ++r)
    minigpt4::encode_row(type, &values[size_t(r * cols)], &bytes[r * row], uint64_t(cols));
  return bytes;
}

Floats decoded(Type type, const std::vector<uint8_t>& blocks, int64_t rows, int64_t cols) {
  Floats values(size_t(rows * cols));
  minigpt4::decode_row(type, blocks.data(), values.data(), values.size());
  return values;
}

const std::vector<Type>& float_types() {
  static const std::vector<Type> types{Type::F32, Type::F16, Type::BF16};
  return types;
}
const std::vector<Type>& block_types() {
  static const std::vector<Type> types{Type::Q4_0, Type::Q4_1, Type::Q5_0, Type::Q5_1, Type::Q8_0,
                                       Type::Q2_K, Type::Q3_K, Type::Q4_K, Type::Q5_K, Type::Q6_K};
  return types;
}

Ops& cpu(const std::string& level, int threads) {
  static std::map<std::pair<std::string, int>, std::unique_ptr<Ops>> made;
  // for one test: a later one may fork, and in the new process these threads would be missing
  static const bool cleared = (check::after_each().emplace_back([] { made.clear(); }), true);
  (void)cleared;
  std::unique_ptr<Ops>& ops = made[{level, threads}];
  if (!ops) ops = minigpt4::make_cpu_ops({threads, level});
  return *ops;
}

bool same_bits(const std::string& what, const Floats& found, const Floats& expected) {
  if (found.size() != expected.size()) {
    check::failed(__FILE__, __LINE__, what + ": another number of values");
    return false;
  }
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::memcmp(&found[i], &expected[i], sizeof(float)) == 0) continue;
    std::ostringstream text;
    text.precision(9);
    text << what << ": value " << i << " of " << found.size() << " is " << found[i] << ", expected " << expected[i];
    check::failed(__FILE__, __LINE__, text.str());
    return false;
  }
  return true;
}

static Floats on_levels(const std::string& what, const std::function<Floats(Ops&)>& run,
                        const std::vector<std::string>& levels) {
  Floats first;
  for (const std::string& level : levels) {
    for (int threads = 1; threads <= 3; ++threads) {
      Ops& ops = cpu(level, threads);
      const Floats result = run(ops);
      if (first.empty()) {
        first = result;
      } else if (!same_bits(what + " on " + ops.describe(), result, first)) {
        return first;
      }
    }
  }
  return first;
}

Floats on_every_level(const std::string& what, const std::function<Floats(Ops&)>& run) {
  return on_levels(what, run, minigpt4::cpu_levels());
}

bool in_halves(const std::string& level) { return level.starts_with("amx"); }

void on_every_kind_of_level(const std::string& what, const std::function<Floats(Ops&)>& run,
                            const std::function<void(const Floats&, bool)>& check) {
  std::vector<std::string> whole, models, chip;
  for (const std::string& level : minigpt4::cpu_levels()) {
    (!in_halves(level) ? whole : level == "amx" ? chip : models).push_back(level);
  }
  check(on_levels(what, run, whole), false);
  for (const std::vector<std::string>& levels : {models, chip}) {
    if (!levels.empty()) check(on_levels(what, run, levels), true);
  }
}

void near(const std::string& what, const Floats& found, const std::vector<double>& expected,
          const std::vector<double>& allowed) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::fabs(double(found[i]) - expected[i]) <= allowed[i]) continue;
    std::ostringstream text;
    text.precision(9);
    text << what << ": value " << i << " is " << found[i] << ", expected " << expected[i] << " within " << allowed[i];
    return check::failed(__FILE__, __LINE__, text.str());
  }
}

}  // namespace ops_case
