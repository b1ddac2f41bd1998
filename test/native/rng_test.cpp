// The generator's published sequence.
#include "core/rng.h"

#include "check.h"

using namespace minigpt4;

TEST("rng: the sequence of a seed is fixed") {
  // From a second implementation; splitmix64 of 0 begins with 0xe220a8397b1dcdaf there, as published.
  Rng zero(0);
  CHECK_EQUAL(zero.next(), 0x99ec5f36cb75f2b4u);
  CHECK_EQUAL(zero.next(), 0xbf6e1f784956452au);
  CHECK_EQUAL(zero.next(), 0x1a5f849d4933e6e0u);
  Rng other(42);
  CHECK_EQUAL(other.next(), 0x15780b2e0c2ec716u);
  CHECK_EQUAL(other.uniform(), double(0x6104d9866d113a7eu >> 11) / 9007199254740992.0);
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
