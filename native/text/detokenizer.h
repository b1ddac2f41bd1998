// Token ids to text as they come, never cutting a UTF-8 character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace minigpt4 {

class Tokenizer;

class StreamingDetokenizer {
 public:
  /// `at_start`: the text's beginning, where the dummy prefix's one leading space is dropped.
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, bool at_start = true);
  /// The text that this token completes: possibly empty while a character's bytes are still coming. Bytes that can no
  /// longer become a character come out as U+FFFD at once.
  std::string push(int32_t id);
  /// What is left: an unfinished character as U+FFFD.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool drop_space_;
  std::string pending_;
};

/// Replaces every maximal invalid sequence by U+FFFD (the Unicode standard's recommendation, as Python's
/// errors="replace"). If `tail` is given, an incomplete character at the end is moved there instead.
std::string to_valid_utf8(std::string_view bytes, std::string* tail = nullptr);

}  // namespace minigpt4
