// A plain trie: vocabularies have a few hundred such pieces at most.
#include "text/piece_matcher.h"

namespace minigpt4 {

void PieceMatcher::add(std::string_view piece, int32_t id) {
  if (piece.empty()) return;
  uint32_t node = 0;
  for (const char c : piece) {
    const auto found = nodes_[node].next.find(static_cast<unsigned char>(c));
    if (found != nodes_[node].next.end()) {
      node = found->second;
      continue;
    }
    const auto created = uint32_t(nodes_.size());
    nodes_[node].next.emplace(static_cast<unsigned char>(c), created);
    nodes_.emplace_back();
    node = created;
  }
  if (nodes_[node].id < 0) nodes_[node].id = id;
}

PieceMatcher::Match PieceMatcher::find(std::string_view text, size_t from) const {
  if (empty()) return {text.size()};
  for (size_t at = from; at < text.size(); ++at) {
    Match match{at};
    uint32_t node = 0;
    for (size_t end = at; end < text.size(); ++end) {
      const auto found = nodes_[node].next.find(static_cast<unsigned char>(text[end]));
      if (found == nodes_[node].next.end()) break;
      node = found->second;
      if (nodes_[node].id >= 0) {
        match.length = end + 1 - at;
        match.id = nodes_[node].id;
      }
    }
    if (match.length > 0) return match;
  }
  return {text.size()};
}

}  // namespace minigpt4
