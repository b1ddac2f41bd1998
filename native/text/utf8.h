// Reads UTF-8 one character at a time, invalid bytes included.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace minigpt4 {

/// What stands at a position of a text.
struct Utf8Character {
  char32_t point;  // 0xFFFD when invalid
  size_t length;   // bytes, at least 1: of the character, or of the maximal invalid sequence (1 to 3)
  bool valid;
  bool incomplete;  // invalid only because the text ends here: more bytes could make it a character
};

/// The character at text[at]; at < text.size(). Overlong forms, surrogates and points above 0x10FFFF are invalid.
Utf8Character read_utf8(std::string_view text, size_t at) noexcept;
/// point must be a Unicode scalar value.
void append_utf8(std::string& text, char32_t point);

}  // namespace minigpt4
