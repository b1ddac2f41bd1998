#include "engine/prompt.h"

#include <algorithm>

namespace minigpt4 {

bool same(const Slot& a, const Slot& b) {
  if (a.id != b.id || a.row != b.row) return false;
  // a picture that was encoded twice has equal values, bit for bit
  return a.image == b.image || (a.image && b.image && a.image->values == b.image->values);
}

void append_tokens(Prompt& prompt, const std::vector<int32_t>& ids) {
  for (int32_t id : ids) prompt.push_back({id, 0, nullptr});
}

void append_image(Prompt& prompt, const Image& image) {
  for (int32_t row = 0; row < image->tokens; ++row) prompt.push_back({-1, row, image});
}

int common_prefix(const Prompt& a, const Prompt& b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t n = 0;
  // comparing a picture's values once is enough for all its rows
  const ImageTokens *seen_a = nullptr, *seen_b = nullptr;
  for (; n < limit; ++n) {
    const bool known = a[n].image && a[n].image.get() == seen_a && b[n].image.get() == seen_b;
    if (known ? a[n].row != b[n].row : !same(a[n], b[n])) break;
    seen_a = a[n].image.get();
    seen_b = b[n].image.get();
  }
  return int(n);
}

}  // namespace minigpt4
