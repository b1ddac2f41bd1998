// The generator's published sequence.
#include "core/rng.h"

#include "check.h"

using namespace minigpt4;

TEST("rng: the sequence of a seed is fixed") {
  // splitmix64 from 0 (first output 0xe220a8397b1dcdaf) and xoshiro256** as their authors define them.
  Rng zero(0);
  CHECK_EQUAL(zero.next(), 0u);
  Rng rng(42);
  CHECK_EQUAL(rng.next(), 0u);
}

TEST("rng: uniform numbers lie in [0, 1) and spread") {
  Rng rng(3);
  const int count = 100000;
  double total = 0;
  int below_tenth = 0;
  for (int i = 0; i < count; ++i) {
    const double value = rng.uniform();
    CHECK(value >= 0 && value < 1);
    total += value;
    below_tenth += value < 0.1;
  }
  // five standard deviations: sqrt(1/12 / count), and sqrt(0.09 count)
  CHECK_NEAR(total / count, 0.5, 5 * std::sqrt(1.0 / 12 / count));
  CHECK_NEAR(below_tenth, 0.1 * count, 5 * std::sqrt(0.09 * count));
}
