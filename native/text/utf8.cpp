// Table-free UTF-8 reading after table 3-7 of the Unicode standard (well-formed byte sequences).
#include "text/utf8.h"

namespace minigpt4 {

Utf8Character read_utf8(std::string_view text, size_t at) noexcept {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return {lead, 1, true, false};
  size_t length;
  unsigned char low = 0x80, high = 0xBF;  // what the second byte may be
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {0xFFFD, 1, false, false};
  }
  char32_t point = lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return {0xFFFD, i, false, true};
    const auto next = static_cast<unsigned char>(text[at + i]);
    if (next < low || next > high) return {0xFFFD, i, false, false};
    point = (point << 6) | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {point, length, true, false};
}

void append_utf8(std::string& text, char32_t point) {
  if (point < 0x80) {
    text += char(point);
  } else if (point < 0x800) {
    text += char(0xC0 | (point >> 6));
    text += char(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    text += char(0xE0 | (point >> 12));
    text += char(0x80 | ((point >> 6) & 0x3F));
    text += char(0x80 | (point & 0x3F));
  } else {
    text += char(0xF0 | (point >> 18));
    text += char(0x80 | ((point >> 12) & 0x3F));
    text += char(0x80 | ((point >> 6) & 0x3F));
    text += char(0x80 | (point & 0x3F));
  }
}

}  // namespace minigpt4
