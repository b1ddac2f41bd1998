// Finds whole pieces (control or user-defined ones) in a text, the longest at each place.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

namespace minigpt4 {

class PieceMatcher {
 public:
  struct Match {
    size_t at = 0, length = 0;  // length 0: nothing was found, at is the text's end
    int32_t id = -1;
  };

  /// The view must outlive the matcher. Empty pieces are ignored; of equal ones the first stays.
  void add(std::string_view piece, int32_t id);
  bool empty() const noexcept { return nodes_.size() == 1; }
  /// The first match at or after `from`.
  Match find(std::string_view text, size_t from) const;

 private:
  struct Node {
    std::map<unsigned char, uint32_t> next;  // index of the node behind each byte
    int32_t id = -1;
  };
  std::vector<Node> nodes_{1};
};

}  // namespace minigpt4
