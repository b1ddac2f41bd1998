// A small seeded random generator whose sequence is fixed on every platform (xoshiro256**, Blackman and Vigna 2018,
// seeded through splitmix64).
#pragma once

#include <cstdint>

namespace minigpt4 {

class Rng {
 public:
  explicit Rng(uint64_t seed) noexcept;
  uint64_t next() noexcept;
  /// Uniform in [0, 1), 53 bits.
  double uniform() noexcept;

 private:
  uint64_t state_[4];
};

}  // namespace minigpt4
