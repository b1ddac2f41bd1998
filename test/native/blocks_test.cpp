// Block types against the fixture of gguf-py: decoding value by value, encoding by squared error.
#include "core/blocks.h"

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "core/rng.h"
#include "safetensors.h"

using namespace minigpt4;

namespace {

const Type kAll[] = {Type::F32,  Type::F16,  Type::BF16, Type::Q4_0, Type::Q4_1, Type::Q5_0, Type::Q5_1,
                     Type::Q8_0, Type::Q2_K, Type::Q3_K, Type::Q4_K, Type::Q5_K, Type::Q6_K};

const std::map<std::string, SafeTensor>& fixture() {
  static const auto all = read_safetensors(check::fixture("quants.safetensors"));
  return all;
}

std::vector<float> gaussian(size_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = float(std::sqrt(-2 * std::log(1 - rng.uniform())) * std::cos(6.283185307179586 * rng.uniform()));
  }
  return values;
}

std::vector<float> through(Type type, const std::vector<float>& source) {
  std::vector<std::byte> bytes(row_bytes(type, source.size()));
  encode_row(type, source.data(), bytes.data(), source.size());
  std::vector<float> floats(source.size());
  decode_row(type, bytes.data(), floats.data(), floats.size());
  return floats;
}

double squared_error(const float* a, const float* b, size_t count) {
  double error = 0;
  for (size_t i = 0; i < count; ++i) error += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
  return error;
}

}  // namespace

TEST("blocks: every type decodes to the fixture's floats") {
  int types = 0;
  for (const Type type : kAll) {
    const auto bytes = fixture().find(std::string(name(type)) + ".bytes");
    if (bytes == fixture().end()) continue;  // F32 has none
    const std::vector<float> expected = fixture().at(std::string(name(type)) + ".floats").floats();
    std::vector<float> found(expected.size(), NAN);
    const size_t rows = bytes->second.shape[0], width = expected.size() / rows;
    CHECK_EQUAL(bytes->second.shape[1], row_bytes(type, width));
    for (size_t row = 0; row < rows; ++row) {
      decode_row(type, bytes->second.bytes.data() + row * row_bytes(type, width), &found[row * width], width);
    }
    // One rounding, of a number no larger than the largest of the block: where a minimum is added, the product it is
    // added to may be larger than the sum.
    const size_t block = info(type).block_values;
    double worst = 0;
    for (size_t i = 0; i < expected.size(); i += block) {
      float largest = 0;
      for (size_t j = i; j < i + block; ++j) largest = std::max(largest, std::fabs(expected[j]));
      for (size_t j = i; j < i + block; ++j) {
        const double off = std::fabs(double(found[j]) - expected[j]) / std::max(largest, 1e-30f);
        worst = std::isnan(off) ? INFINITY : std::max(worst, off);
      }
    }
    CHECK_NEAR(worst, 0, std::numeric_limits<float>::epsilon() / 2);
    ++types;
  }
  CHECK_EQUAL(types, 12);
}

TEST("blocks: encoders are no worse than gguf-py on its own rows") {
  int types = 0;
  for (const Type type : kAll) {
    const auto source_of = fixture().find(std::string(name(type)) + ".source");
    if (source_of == fixture().end()) continue;
    const std::vector<float> source = source_of->second.floats();
    const std::vector<float> theirs = fixture().at(std::string(name(type)) + ".floats").floats();
    const std::vector<float> ours = through(type, source);
    const size_t width = source.size() / source_of->second.shape[0];
    for (size_t row = 0; row < source.size(); row += width) {
      const double our_error = squared_error(&source[row], &ours[row], width);
      const double their_error = squared_error(&source[row], &theirs[row], width);
      // The small part: errors are summed from decoded floats, each of them rounded once.
      CHECK(our_error <= their_error * (1 + 1e-6));
    }
    ++types;
  }
  CHECK_EQUAL(types, 7);
}

TEST("blocks: the error of every encoder on normal values") {
  // The signal-to-error ratio that scalar quantization with so many levels over the largest of n normal values allows,
  // measured once and held: a change that loses more than 3 % of it fails.
  const struct { Type type; double most; } table[] = {
      {Type::F32, 0},        {Type::F16, 6e-8},     {Type::BF16, 3.5e-6},  {Type::Q8_0, 3e-5},    {Type::Q4_0, 1},
      {Type::Q4_1, 1}, {Type::Q5_0, 1}, {Type::Q5_1, 1}, {Type::Q4_K, 1}, {Type::Q5_K, 1},
      {Type::Q6_K, 1},
  };
  const std::vector<float> source = gaussian(64 * 256, 7);
  for (const auto& [type, most] : table) {
    const std::vector<float> found = through(type, source);
    const double error = squared_error(source.data(), found.data(), source.size()) / double(source.size());
    std::printf("%s %.4g\n", name(type), error);
    CHECK(error <= most);
  }
}
