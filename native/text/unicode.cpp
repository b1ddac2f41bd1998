// Looks classes up in the generated ranges; ASCII comes from a table.
#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "text/unicode_ranges.h"

namespace minigpt4 {
namespace {

template <size_t count>
bool contains(const CodeRange (&ranges)[count], char32_t point) noexcept {
  const auto* after = std::upper_bound(std::begin(ranges), std::end(ranges), point,
                                       [](char32_t wanted, const CodeRange& range) { return wanted < range.first; });
  return after != std::begin(ranges) && point <= std::prev(after)->last;
}

CharClass look_up(char32_t point) noexcept {
  if (contains(letter_ranges, point)) return CharClass::letter;
  if (contains(space_ranges, point)) return CharClass::space;
  return contains(number_ranges, point) ? CharClass::number : CharClass::other;
}

}  // namespace

CharClass char_class(char32_t point) noexcept {
  static const std::array<CharClass, 128> ascii = [] {
    std::array<CharClass, 128> classes{};
    for (char32_t i = 0; i < 128; ++i) classes[i] = look_up(i);
    return classes;
  }();
  return point < 128 ? ascii[point] : look_up(point);
}

}  // namespace minigpt4
