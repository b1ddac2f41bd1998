// Guesses how a sequence of tokens goes on from how it went on before: text that repeats itself, or that a prompt holds
// already, needs no smaller model to be guessed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace minigpt4 {

class Lookup {
 public:
  /// What stands at the next position: a token's id, or -1 for what is no token and like nothing else.
  void append(int32_t id);
  /// What may come next, at most `most` ids: what followed the same last tokens where they stood before. Empty: they
  /// have not yet.
  std::vector<int32_t> guess(int most) const;

 private:
  // In the miniature's first answers a pair of tokens that stood together before is followed by the same one again every
  // second time, a single token every sixth time, which is less than a row of a pass is worth. Of several places the one
  // where more agrees is right more often, up to about four tokens.
  static constexpr int kShortest = 2, kLongest = 4;

  /// n tokens, and -1 up to kLongest.
  using Gram = std::array<int32_t, kLongest>;
  struct Hash {
    std::size_t operator()(const Gram& gram) const noexcept;
  };
  std::vector<int32_t> ids_;
  std::unordered_map<Gram, int32_t, Hash> next_;  // where each was followed by a token, the last time

  bool last(int n, Gram& gram) const;
};

}  // namespace minigpt4
