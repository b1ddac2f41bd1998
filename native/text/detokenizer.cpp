// Bytes of tokens gather until they are whole characters.
#include "text/detokenizer.h"

#include <utility>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace minigpt4 {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

std::string to_valid_utf8(std::string_view bytes, std::string* tail) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Character character = read_utf8(bytes, at);
    if (character.incomplete && tail) {
      tail->assign(bytes.substr(at));
      return text;
    }
    text += character.valid ? bytes.substr(at, character.length) : replacement;
    at += character.length;
  }
  if (tail) tail->clear();
  return text;
}

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, bool at_start)
    : tokenizer_(tokenizer), drop_space_(at_start) {}

std::string StreamingDetokenizer::push(int32_t id) {
  std::string bytes = tokenizer_.bytes_of(id);
  if (bytes.empty()) return {};
  if (drop_space_ && bytes[0] == ' ' && tokenizer_.drops_leading_space(id)) bytes.erase(0, 1);
  drop_space_ = false;
  pending_ += bytes;
  const std::string all = std::move(pending_);
  pending_.clear();
  return to_valid_utf8(all, &pending_);
}

std::string StreamingDetokenizer::finish() {
  std::string rest = to_valid_utf8(pending_);
  pending_.clear();
  return rest;
}

}  // namespace minigpt4
