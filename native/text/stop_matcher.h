// Finds stop strings in streamed text, also across token borders, holding back what might become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace minigpt4 {

class StopMatcher {
 public:
  /// Empty stop strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);
  /// Returns the text that is safe to show. Once a stop string is complete, returns what stood before it and
  /// `stopped()` is true; further text is dropped. The one that is complete first counts, the longest if several are at
  /// once, so the result does not depend on how the text was cut.
  std::string push(std::string_view text);
  /// What was held back (empty after a stop).
  std::string finish();
  bool stopped() const noexcept { return stopped_; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // Knuth-Morris-Pratt: length of the longest border of each prefix
    size_t matched = 0;            // bytes of text that the stream ends with
  };
  std::vector<Stop> stops_;
  std::string held_;  // the longest prefix of a stop string that the stream ends with
  bool stopped_ = false;
};

}  // namespace minigpt4
