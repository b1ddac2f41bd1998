// What the fuzz targets share: a seeded mutator of byte strings and the loop that runs a target for some seconds. A
// target accepts an input or throws minigpt4::Error; anything else is a finding.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace fuzz {

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : rng_(seed) {}

  /// Uniform in [0, below); 0 if below is 0.
  size_t pick(size_t below) { return below == 0 ? 0 : size_t(rng_.next() % below); }

  /// `input` with one to eight changes. Half of them fall into the first `interesting` bytes (headers, where a number
  /// decides over what follows); 0: all bytes are alike.
  std::string mutate(std::string input, size_t interesting = 0) {
    for (size_t changes = 1 + pick(8); changes > 0; --changes) change(input, interesting);
    return input;
  }

 private:
  minigpt4::Rng rng_;

  size_t place(const std::string& bytes, size_t interesting) {
    if (interesting > 0 && pick(2) == 0) return pick(interesting < bytes.size() ? interesting : bytes.size());
    return pick(bytes.size());
  }

  /// Writes a number that borders on something over 1, 2, 4 or 8 bytes.
  void put_extreme(std::string& bytes, size_t at) {
    static constexpr uint64_t kExtremes[] = {0,
                                             1,
                                             2,
                                             3,
                                             7,
                                             8,
                                             31,
                                             32,
                                             33,
                                             127,
                                             128,
                                             255,
                                             256,
                                             0x7fff,
                                             0x8000,
                                             0xffff,
                                             0x10000,
                                             0x3fffffff,
                                             0x40000000,
                                             0x7fffffff,
                                             0x80000000,
                                             0xfffffffe,
                                             0xffffffff,
                                             0x100000000,
                                             0x3fffffffffffffff,
                                             0x4000000000000000,
                                             0x7fffffffffffffff,
                                             0x8000000000000000,
                                             0xfffffffffffffff0,
                                             0xffffffffffffffff};
    uint64_t value = kExtremes[pick(sizeof kExtremes / sizeof *kExtremes)];
    if (pick(4) == 0) value = bytes.size() + pick(65) - 32;  // about the length of the whole
    const size_t width = std::min<size_t>(size_t(1) << pick(4), bytes.size() - at);
    std::memcpy(bytes.data() + at, &value, width);
  }

  void change(std::string& bytes, size_t interesting) {
    if (bytes.empty()) {
      bytes.push_back(char(pick(256)));
      return;
    }
    const size_t at = place(bytes, interesting);
    switch (pick(9)) {
      case 0:
        bytes[at] = char(bytes[at] ^ (1 << pick(8)));
        break;
      case 1:
        bytes[at] = char(pick(256));
        break;
      case 2:
        bytes[at] = char(bytes[at] + (pick(2) ? 1 : -1));
        break;
      case 3:
      case 4:
        put_extreme(bytes, at);
        break;
      case 5:
        bytes.resize(at);
        break;
      case 6: {  // a piece from elsewhere over this place
        const size_t from = pick(bytes.size());
        const size_t length = std::min({pick(64) + 1, bytes.size() - at, bytes.size() - from});
        std::memmove(bytes.data() + at, bytes.data() + from, length);
        break;
      }
      case 7: {  // a piece twice
        const size_t length = std::min(pick(64) + 1, bytes.size() - at);
        const std::string piece = bytes.substr(at, length);
        bytes.insert(at, piece);
        break;
      }
      case 8:
        bytes.erase(at, pick(64) + 1);
        break;
    }
  }
};

/// The main of a target: `SECONDS [SEED]`. Feeds mutated seeds to run(bytes) and prints how many were tried, taken and
/// refused. An exception other than minigpt4::Error ends it with 1 and leaves the input in `finding-TARGET.bin`; the
/// input of a crash is what the printed seed leads to again.
template <class Run>
int run_target(const char* target, int count, char** arguments, const std::vector<std::string>& seeds,
               size_t interesting, Run&& run) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 0;
  if (seconds <= 0) {
    std::fprintf(stderr, "usage: %s SECONDS [SEED]\n", target);
    return 2;
  }
  const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10)
                                  : uint64_t(std::chrono::system_clock::now().time_since_epoch().count());
  std::printf("%s: seed %llu\n", target, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Mutator mutator(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  unsigned long long tried = 0, taken = 0;
  for (; std::chrono::steady_clock::now() < end; ++tried) {
    const std::string& base = seeds[mutator.pick(seeds.size())];
    const std::string input = tried < seeds.size() ? seeds[tried] : mutator.mutate(base, interesting);
    std::string finding;
    try {
      run(input);
      ++taken;
    } catch (const minigpt4::Error& error) {
      // One sentence is due; also for what a healthy seed must not give.
      if (*error.what() == '\0') finding = "an error without a message";
      if (tried < seeds.size()) finding = std::string("an unchanged seed is refused: ") + error.what();
    } catch (const std::exception& error) {
      finding = std::string("an exception that is no Error: ") + error.what();
    }
    if (finding.empty()) continue;
    const std::string file = std::string("finding-") + target + ".bin";
    std::ofstream(file, std::ios::binary) << input;
    std::printf("%s: input %llu of seed %llu (now in %s): %s\n", target, tried, static_cast<unsigned long long>(seed),
                file.c_str(), finding.c_str());
    return 1;
  }
  std::printf("%s: %llu runs, %llu taken, %llu refused\n", target, tried, taken, tried - taken);
  return 0;
}

}  // namespace fuzz
