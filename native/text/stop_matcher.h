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
  /// `stopped()` is true; further text is dropped.
  std::string push(std::string_view text);
  /// What was held back (empty after a stop).
  std::string finish();
  bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace minigpt4
