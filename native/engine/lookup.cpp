#include "engine/lookup.h"

#include <algorithm>

namespace minigpt4 {

void Lookup::append(int32_t id) {
  Gram gram;
  if (id >= 0) {
    for (int n = kShortest; n <= kLongest && last(n, gram); ++n) next_[gram] = int32_t(ids_.size());
  }
  ids_.push_back(id);
}

std::vector<int32_t> Lookup::guess(int most) const {
  std::vector<int32_t> guesses;
  if (most < 1) return guesses;
  Gram gram;
  auto found = next_.end();
  for (int n = kLongest; n >= kShortest && found == next_.end(); --n) {
    if (last(n, gram)) found = next_.find(gram);
  }
  if (found == next_.end()) return guesses;
  const size_t from = size_t(found->second);
  // Few tokens that agree are a weak hint and must not cost many rows; once a whole line is being said again, every
  // guess that was right makes the next ones more.
  size_t agree = 0;
  const auto agrees = [&](size_t back) {
    return back < from && ids_[from - 1 - back] >= 0 && ids_[from - 1 - back] == ids_[ids_.size() - 1 - back];
  };
  while (2 * agree < size_t(most) && agrees(agree)) ++agree;
  for (size_t i = 0; i < std::min(size_t(most), 2 * agree); ++i) {
    // at its end the sequence is thought to go on as guessed: so a line that repeats is followed round and round
    const int32_t id = from + i < ids_.size() ? ids_[from + i] : guesses[from + i - ids_.size()];
    if (id < 0) break;
    guesses.push_back(id);
  }
  return guesses;
}

/// False where there are not so many tokens.
bool Lookup::last(int n, Gram& gram) const {
  if (ids_.size() < size_t(n)) return false;
  gram.fill(-1);
  std::copy(ids_.end() - n, ids_.end(), gram.begin());
  return std::none_of(gram.begin(), gram.begin() + n, [](int32_t id) { return id < 0; });
}

std::size_t Lookup::Hash::operator()(const Gram& gram) const noexcept {
  uint64_t hash = 0;
  for (const int32_t id : gram) {
    // Fibonacci hashing: the golden ratio's multiples spread neighbouring ids over all bits
    hash = (hash ^ uint32_t(id)) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
  }
  return size_t(hash);
}

}  // namespace minigpt4
