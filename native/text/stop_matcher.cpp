// One Knuth-Morris-Pratt automaton a stop string: each byte is looked at once, whatever the cuts.
#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace minigpt4 {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    std::vector<size_t> fallback(text.size() + 1, 0);
    for (size_t i = 1, border = 0; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) border = fallback[border];
      if (text[i] == text[border]) ++border;
      fallback[i + 1] = border;
    }
    stops_.push_back({std::move(text), std::move(fallback)});
  }
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  const size_t fresh = held_.size() - text.size();
  for (size_t at = fresh; at < held_.size(); ++at) {
    size_t complete = 0;
    for (Stop& stop : stops_) {
      while (stop.matched > 0 && stop.text[stop.matched] != held_[at]) stop.matched = stop.fallback[stop.matched];
      if (stop.text[stop.matched] == held_[at]) ++stop.matched;
      if (stop.matched == stop.text.size()) complete = std::max(complete, stop.matched);
    }
    if (complete > 0) {
      stopped_ = true;
      std::string before = held_.substr(0, at + 1 - complete);
      held_.clear();
      return before;
    }
  }
  size_t hold = 0;
  for (const Stop& stop : stops_) hold = std::max(hold, stop.matched);
  std::string safe = held_.substr(0, held_.size() - hold);
  held_.erase(0, safe.size());
  return safe;
}

std::string StopMatcher::finish() {
  for (Stop& stop : stops_) stop.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace minigpt4
