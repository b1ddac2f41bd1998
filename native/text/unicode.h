// Classes of characters that pre-tokenizers tell apart.
#pragma once

#include <cstdint>

namespace minigpt4 {

enum class CharClass : uint8_t { letter, number, space, other };  // \p{L}, \p{N}, \s, anything else

CharClass char_class(char32_t point) noexcept;

}  // namespace minigpt4
