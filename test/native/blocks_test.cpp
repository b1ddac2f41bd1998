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
  // Mean squared error on variance 1, as measured, and 3 % more: what a change of the search may lose unnoticed. For
  // the order of size: 4 bits over the +-2.1 that 32 normal values span on average give (4.2 / 15)^2 / 12 = 0.0065.
  const struct {
    Type type;
    double measured;
  } table[] = {{Type::F32, 0},         {Type::F16, 4.202e-8},  {Type::BF16, 2.715e-6}, {Type::Q8_0, 2.773e-5},
               {Type::Q4_0, 0.006258}, {Type::Q4_1, 0.004733}, {Type::Q5_0, 0.001561}, {Type::Q5_1, 0.001116},
               {Type::Q4_K, 0.004842}, {Type::Q5_K, 0.001207}, {Type::Q6_K, 0.0002888}};
  const std::vector<float> source = gaussian(64 * 256, 7);
  for (const auto& [type, measured] : table) {
    const std::vector<float> found = through(type, source);
    const double error = squared_error(source.data(), found.data(), source.size()) / double(source.size());
    CHECK_NEAR(error, 0, measured * 1.03);
  }
}

TEST("blocks: what a block can hold exactly comes back exactly") {
  for (const Type type : kAll) {
    if (!can_encode(type) || !is_quantized(type)) continue;
    std::vector<float> source(256, 0.f);
    CHECK(through(type, source) == source);
    // All equal: a power of two is a multiple of any of the scales that fit it.
    source.assign(256, -0.5f);
    CHECK_NEAR(squared_error(source.data(), through(type, source).data(), 256), 0, 256 * 1e-6);
    // One value among zeros, on both sides, wherever it lies: a packing that swaps places shows.
    for (size_t place = 0; place < 256; ++place) {
      for (const float value : {-4.f, 4.f}) {
        source.assign(256, 0.f);
        source[place] = value;
        const std::vector<float> found = through(type, source);
        for (size_t i = 0; i < 256; ++i) CHECK_NEAR(found[i], source[i], 0.07);
      }
    }
  }
}

TEST("blocks: extreme numbers stay numbers, and what no block can hold is refused") {
  const float huge = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  for (const Type type : kAll) {
    if (!can_encode(type) || !is_quantized(type)) continue;
    for (const float scale : {huge, 1e30f, 1e-8f, 1e-19f, 1e-30f, tiny}) {
      std::vector<float> source = gaussian(256, 3);
      for (size_t i = 0; i < source.size(); ++i)
        source[i] = i % 3 ? std::min(1.f, std::max(-1.f, source[i])) * scale : 0;
      for (const float value : through(type, source)) CHECK(std::isfinite(value));
    }
    for (const float bad : {float(INFINITY), -float(INFINITY), float(NAN)}) {
      std::vector<float> source(512, 1.f);
      source[300] = bad;
      std::vector<std::byte> bytes(row_bytes(type, 512));
      CHECK_ERROR(code::argument, "value 300", encode_row(type, source.data(), bytes.data(), 512));
    }
  }
}

TEST("blocks: parts of a block, and types that are only read") {
  const std::vector<float> source(256);
  std::vector<float> floats(256);
  std::vector<std::byte> bytes(1024);
  CHECK_ERROR(code::shape, "blocks hold 32", encode_row(Type::Q4_0, source.data(), bytes.data(), 33));
  CHECK_ERROR(code::shape, "blocks hold 256", decode_row(Type::Q6_K, bytes.data(), floats.data(), 128));
  for (const Type type : {Type::Q2_K, Type::Q3_K}) {
    CHECK(!can_encode(type));
    CHECK_ERROR(code::unsupported, name(type), encode_row(type, source.data(), bytes.data(), 256));
  }
  decode_row(Type::Q4_0, nullptr, nullptr, 0);
  encode_row(Type::F32, nullptr, nullptr, 0);
}
