// Does a GPU do what the emulator says? Runs each kernel of wrapper_kernels.h with the same seeded input, writes the registers
// of all lanes into a text file ("write", in the emulator) or compares them with such a file ("compare", on a GPU): bit for
// bit, but for float products of the matrix units and approximate functions, whose tolerances stand with their cases.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "wrapper_kernels.h"

namespace minigpt4::conformance {
namespace {

using Words = std::vector<uint32_t>;

float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
uint32_t as_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

/// splitmix64 (Steele, Lea, Flood 2014): the input of a case depends on nothing but its name.
class Random {
 public:
  explicit Random(const char* name) {
    for (; *name; ++name) state_ = state_ * 31 + uint64_t(*name);
  }
  uint32_t bits() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return uint32_t(x >> 32);
  }
  uint32_t below(uint32_t end) { return bits() % end; }
  float between(float low, float high) { return low + (high - low) * (float(bits() >> 8) * 0x1p-24f); }

 private:
  uint64_t state_ = 4;
};

// ---- input words; `i` is the word's number among its lane's

uint32_t any_bits(Random& random, int) { return random.bits(); }

/// From 2^-4 to 2^2, either sign, one in sixteen with the smallest exponent (f16: subnormal).
template <int exponent_bits>
uint32_t half(Random& random) {
  constexpr int fraction = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t exponent = random.below(16) == 0 ? (exponent_bits == 5 ? 0 : 1) : uint32_t(bias - 4) + random.below(6);
  return random.below(2) << 15 | exponent << fraction | random.below(1u << fraction);
}
template <int exponent_bits>
uint32_t half_product_word(Random& random, int i) {
  if (i >= 8) return as_bits(random.between(-16, 16));
  const uint32_t low = half<exponent_bits>(random);
  return low | half<exponent_bits>(random) << 16;
}
uint32_t byte_product_word(Random& random, int i) {
  return i >= 8 ? random.below(1u << 20) - (1u << 19) : random.bits();
}

/// All bits; the range of f16 and its borders; numbers midway between two of f16 (bf16); special ones.
uint32_t conversion_word(Random& random, int i) {
  static constexpr uint32_t special[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345,
                                         0x7f800001, 0x477fefff, 0x477ff000, 0x477fe000, 0x33000000, 0x33000001,
                                         0x387fffff, 0x38800000, 0x7f7fffff, 0x00000001};
  const uint32_t in_range = random.below(2) << 31 | (127 - 26 + random.below(44)) << 23;
  switch (i % 4) {
    case 0:
      return random.bits();
    case 1:
      return in_range | random.below(1u << 23);
    case 2:
      return in_range |
             (random.below(2) ? random.below(1u << 10) << 13 | 0x1000 : random.below(1u << 7) << 16 | 0x8000);
    default:
      return special[random.below(16)];
  }
}

/// Not within 2^-10 of -126, where a result may be flushed or not.
uint32_t exponent_word(Random& random, int i) {
  static constexpr float special[] = {0, -INFINITY, INFINITY, NAN, 1, -1, 127, -125};
  if (i < 8) return as_bits(special[i]);
  const float x = random.between(-150, 130);
  return as_bits(std::fabs(x + 126) < 0x1p-10f ? 0.5f : x);
}
uint32_t modest_word(Random& random, int) { return as_bits(random.between(-9, 9)); }

// ---- cases

/// How far a word may be from the emulator's.
enum class Allowed {
  nothing,  // the same bits; every NaN has its bits too
  /// Outputs are sums, then the sizes of their terms. 17 terms, each cut at the last bit that the largest of them has in
  /// float32 (matrix units need not round): 17 · 2^-23 of the sizes, and the emulator's own roundings within that.
  sums,
  units,  // in the last place: Case::units; NaN is NaN
};

struct Case {
  const char* name;
  void (*kernel)(uint32_t*, const uint32_t*);
  int inputs, outputs;
  uint32_t (*word)(Random&, int);
  Allowed allowed = Allowed::nothing;
  int units = 0;
  size_t shared = 0;
  int links = 1;  // launches; all but the first read what the one before wrote, and overlap it where the device can
};

template <class Sizes>
Case make(const char* name, void (*kernel)(uint32_t*, const uint32_t*), uint32_t (*word)(Random&, int),
          Allowed allowed = Allowed::nothing, int units = 0, size_t shared = 0) {
  return {name, kernel, Sizes::kInputs, Sizes::kOutputs, word, allowed, units, shared};
}

std::vector<Case> cases() {
  return {
      make<Loads>("loads", loads, any_bits),
      {"overlap", chain_link, Link::kInputs, Link::kOutputs, any_bits, Allowed::nothing, 0, 0, 64},
      make<Copies>("cp_async", copies, any_bits),
      make<WideShared>("dynamic_shared", wide_shared, any_bits, Allowed::nothing, 0, WideShared::kBytes),
      make<MatrixLoads>("ldmatrix", matrix_loads, any_bits),
      make<HalfProduct>("mma_f16", product_f16, half_product_word<5>, Allowed::sums),
      make<HalfProduct>("mma_bf16", product_bf16, half_product_word<8>, Allowed::sums),
      make<ByteProduct>("mma_s8", product_s8, byte_product_word),
      make<Conversions>("conversions", conversions, conversion_word),
      make<AllHalves>("all_halves", all_halves, any_bits),
      make<WarpWords>("warp_words", warp_words, any_bits),
      make<ExactWords>("exact_words", exact_words, any_bits),
      // the device's bound (PTX ISA, ex2.approx; CUDA C++ Programming Guide, mathematical functions), and one unit for
      // the emulator's
      make<Functions>("exp2_approx", exp2_approx, exponent_word, Allowed::units, 3),
      make<Functions>("expf", exponential, modest_word, Allowed::units, 3),
      make<Functions>("erfcf", complementary_error, modest_word, Allowed::units, 5),
      make<Functions>("rsqrtf", inverse_root, modest_word, Allowed::units, 3),
  };
}

void check(cudaError_t status, const std::string& doing) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(doing + ": " + cudaGetErrorName(status) + ", " + cudaGetErrorString(status));
}

/// Device memory of so many words.
struct DeviceWords {
  explicit DeviceWords(size_t count) { check(cudaMalloc(&memory, count * sizeof(uint32_t)), "taking memory"); }
  ~DeviceWords() { cudaFree(memory); }
  DeviceWords(const DeviceWords&) = delete;
  DeviceWords& operator=(const DeviceWords&) = delete;
  uint32_t* memory = nullptr;
};

bool can_overlap() {
  uint32_t answer = 0;
  const DeviceWords to(1);
  check(gpu::launch(waits, gpu::Launch{dim3(1), dim3(1), 0, nullptr}, to.memory), "asking for overlap");
  check(cudaMemcpy(&answer, to.memory, sizeof answer, cudaMemcpyDeviceToHost), "asking for overlap");
  return answer != 0;
}

Words run(const Case& of) {
  Random random(of.name);
  Words in(size_t(32 * of.inputs)), out(size_t(32 * of.outputs), 0xdeadbeef);
  for (size_t i = 0; i < in.size(); ++i) in[i] = of.word(random, int(i) % of.inputs);
  const DeviceWords from(in.size()), to(out.size());
  check(cudaMemcpy(from.memory, in.data(), in.size() * 4, cudaMemcpyHostToDevice), of.name);
  check(cudaMemcpy(to.memory, out.data(), out.size() * 4, cudaMemcpyHostToDevice), of.name);
  const bool overlaps = of.links > 1 && can_overlap();
  for (int link = 0; link < of.links; ++link) {
    // there and back; the last one writes to `to`
    const bool back = (of.links - link) % 2 == 0;
    uint32_t* const output = back ? from.memory : to.memory;
    const uint32_t* const input = back ? to.memory : from.memory;
    const gpu::Launch how{dim3(1), dim3(32), of.shared, nullptr, overlaps && link > 0};
    check(gpu::launch(of.kernel, how, output, input), of.name);
  }
  check(cudaDeviceSynchronize(), of.name);
  check(cudaMemcpy(out.data(), to.memory, out.size() * 4, cudaMemcpyDeviceToHost), of.name);
  return out;
}

/// Numbers of floats in order: neighbours differ by one, the two zeros not at all.
int64_t in_order(uint32_t bits) {
  const auto size = int64_t(bits & 0x7fffffff);
  return bits >> 31 ? -size : size;
}

bool agrees(const Case& of, const Words& found, const Words& expected, size_t at) {
  const float x = as_float(found[at]), y = as_float(expected[at]);
  switch (of.allowed) {
    case Allowed::nothing:
      return found[at] == expected[at];
    case Allowed::sums: {
      const size_t lane = at / size_t(of.outputs) * size_t(of.outputs), j = at % size_t(of.outputs) % 4;
      return std::fabs(double(x) - double(y)) <= 17 * 0x1p-23 * double(as_float(expected[lane + 4 + j]));
    }
    default:
      if (std::isnan(x) || std::isnan(y)) return std::isnan(x) && std::isnan(y);
      return std::abs(in_order(found[at]) - in_order(expected[at])) <= of.units;
  }
}

// ---- the file: a line a case, its name and its words in hexadecimal

int write(const char* path) {
  std::ofstream file(path);
  for (const Case& of : cases()) {
    file << of.name << std::hex;
    for (const uint32_t word : run(of)) file << ' ' << word;
    file << std::dec << '\n';
  }
  file.close();
  if (!file) throw std::runtime_error(std::string("cannot write ") + path);
  std::printf("%zu cases written to %s\n", cases().size(), path);
  return 0;
}

std::map<std::string, Words> read(const char* path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(std::string("cannot read ") + path);
  std::map<std::string, Words> all;
  for (std::string line; std::getline(file, line);) {
    std::istringstream text(line);
    std::string name;
    text >> name >> std::hex;
    for (uint32_t word; text >> word;) all[name].push_back(word);
  }
  return all;
}

bool compare(const Case& of, const Words& found, const Words& expected) {
  if (expected.size() != found.size()) {
    std::printf("FAIL %s: the file has %zu words, expected %zu\n", of.name, expected.size(), found.size());
    return false;
  }
  size_t wrong = 0;
  for (size_t at = 0; at < found.size(); ++at) {
    if (agrees(of, found, expected, at) || ++wrong > 8) continue;
    std::printf("  %s, lane %zu, word %zu: found %08x (%g), expected %08x (%g)\n", of.name, at / size_t(of.outputs),
                at % size_t(of.outputs), found[at], double(as_float(found[at])), expected[at],
                double(as_float(expected[at])));
  }
  std::printf("%s %s: %zu of %zu words\n", wrong ? "FAIL" : "PASS", of.name, found.size() - wrong, found.size());
  return wrong == 0;
}

int compare(const char* path) {
  std::map<std::string, Words> expected = read(path);
  int failed = 0;
  for (const Case& of : cases()) failed += compare(of, run(of), expected[of.name]) ? 0 : 1;
  std::printf("%zu passed, %d failed\n", cases().size() - size_t(failed), failed);
  return failed == 0 ? 0 : 1;
}

constexpr const char* kUsage =
    "usage: conformance write FILE     the registers of every case, as this build's device has them\n"
    "       conformance compare FILE   with those of the file; 0: all agree, 1: some do not, 2: could not run\n";

}  // namespace
}  // namespace minigpt4::conformance

int main(int count, char** arguments) {
  using namespace minigpt4::conformance;
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "--help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  try {
    if (count == 3 && what == "write") return write(arguments[2]);
    if (count == 3 && what == "compare") return compare(arguments[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "conformance: %s\n", error.what());
    return 2;
  }
  std::fputs(kUsage, stderr);
  return 2;
}
