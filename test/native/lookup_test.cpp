// Guesses from what a sequence said before.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "core/rng.h"
#include "engine/lookup.h"

using namespace minigpt4;

namespace {

using Ids = std::vector<int32_t>;

std::string text(const Ids& ids) {
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

/// At most `most` guesses after these.
std::string guess(const Ids& ids, int most) {
  Lookup lookup;
  for (const int32_t id : ids) lookup.append(id);
  return text(lookup.guess(most));
}

/// The same by trying every place, the longest agreement of the last 2 to 4 tokens first, of those the last place.
Ids searched(const Ids& ids, int most) {
  const int size = int(ids.size());
  const auto agree = [&](int at) {  // of the tokens before `at` and the last ones
    int n = 0;
    while (n < at && ids[size_t(at - 1 - n)] >= 0 && ids[size_t(at - 1 - n)] == ids[size_t(size - 1 - n)]) ++n;
    return n;
  };
  for (int n = 4; n >= 2; --n) {
    for (int at = size - 1; at >= n; --at) {
      if (ids[size_t(at)] < 0 || agree(at) < n) continue;
      Ids longer = ids;
      for (int i = 0; i < std::min(most, 2 * agree(at)) && longer[size_t(at + i)] >= 0; ++i) {
        longer.push_back(longer[size_t(at + i)]);
      }
      return {longer.begin() + size, longer.end()};
    }
  }
  return {};
}

}  // namespace

TEST("lookup: what followed the same two tokens is guessed") {
  CHECK_EQUAL(guess({1, 2, 3, 4, 5, 9, 1, 2}, 8), "3 4 5 9");  // two that agree are worth four guesses
  CHECK_EQUAL(guess({1, 2, 3, 4, 5, 9, 1, 2}, 1), "3");
  CHECK_EQUAL(guess({1, 2, 3, 4, 5, 9, 1, 2}, 0), "");
  CHECK_EQUAL(guess({1, 2, 3, 4, 5, 9, 1, 2}, -1), "");
}

TEST("lookup: one token that was said before is no reason to guess, nor is nothing") {
  CHECK_EQUAL(guess({1, 2, 3, 4, 2}, 8), "");
  CHECK_EQUAL(guess({1}, 8), "");
  CHECK_EQUAL(guess({}, 8), "");
}

TEST("lookup: the place where more agrees counts, and of equal ones the last") {
  CHECK_EQUAL(guess({8, 1, 2, 3, 7, 1, 2, 4, 8, 1, 2}, 1), "3");
  CHECK_EQUAL(guess({7, 1, 2, 3, 7, 1, 2, 4, 7, 1, 2}, 1), "4");
}

TEST("lookup: what repeats itself is followed round and round") {
  CHECK_EQUAL(guess({5, 6, 5, 6, 5, 6}, 5), "5 6 5 6 5");
  CHECK_EQUAL(guess({4, 4, 4}, 3), "4 4 4");
}

TEST("lookup: a picture is like nothing else and is never guessed") {
  CHECK_EQUAL(guess({-1, -1, 5, -1, -1}, 4), "");
  CHECK_EQUAL(guess({-1, 2, 3, -1, 2}, 4), "");
  CHECK_EQUAL(guess({1, 2, 3, -1, 4, 1, 2}, 4), "3");
  CHECK_EQUAL(guess({1, 2, -1, 4, 1, 2}, 4), "");
}

TEST("lookup: the index finds what a search of the whole sequence finds") {
  Rng rng(5);
  int found = 0;
  for (int run = 0; run < 300; ++run) {
    Lookup lookup;
    Ids ids;
    const int words = 2 + int(rng.next() % 5);  // so few that sequences repeat by chance
    for (int i = 0; i < 60; ++i) {
      ids.push_back(rng.next() % 16 == 0 ? -1 : int32_t(rng.next() % uint64_t(words)));
      lookup.append(ids.back());
      const int most = 1 + int(rng.next() % 16);
      const Ids guesses = lookup.guess(most);
      CHECK_EQUAL(text(guesses), text(searched(ids, most)));
      found += guesses.empty() ? 0 : 1;
    }
  }
  CHECK(found > 1000);
}
