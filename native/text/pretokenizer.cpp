// The published regular expressions, written out as code: every rule is tried in the expression's order at each place.
#include "text/pretokenizer.h"

#include <cstdint>
#include <string>

#include "core/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace minigpt4 {
namespace {

using Rule = PreTokenizer::Rule;

struct Named {
  std::string_view name;
  PreTokenizer pretokenizer;
};

constexpr PreTokenizer gpt2{Rule::gpt2};
constexpr PreTokenizer single_digits{Rule::single_digits};
constexpr PreTokenizer llama3{Rule::llama3, 3, true};
constexpr PreTokenizer triples{Rule::llama3, 3, false};
constexpr PreTokenizer qwen2{Rule::llama3, 1, false};

constexpr Named known[] = {
    {"", gpt2},
    {"default", gpt2},
    {"gpt2", gpt2},
    {"gpt-2", gpt2},
    {"phi-2", gpt2},
    {"mpt", gpt2},
    {"olmo", gpt2},
    {"jina-es", gpt2},
    {"jina-de", gpt2},
    {"gigachat", gpt2},
    {"smollm", single_digits},
    {"starcoder", single_digits},
    {"refact", single_digits},
    {"command-r", single_digits},
    {"codeshell", single_digits},
    {"exaone", single_digits},
    {"minerva-7b", single_digits},
    {"llama-bpe", llama3},
    {"llama3", llama3},
    {"llama-v3", llama3},
    {"falcon3", llama3},
    {"pixtral", llama3},
    {"dbrx", triples},
    {"smaug-bpe", triples},
    {"qwen2", qwen2},
    {"stablelm2", qwen2},
    {"deepseek-r1-qwen", qwen2},
    {"megrez", qwen2},
    {"hunyuan", qwen2},
};

/// A text cut into characters once, so that rules can look ahead cheaply.
class Splitter {
 public:
  Splitter(const PreTokenizer& pretokenizer, std::string_view text) : pretokenizer_(pretokenizer), text_(text) {
    starts_.reserve(text.size() + 1);
    classes_.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const Utf8Character character = read_utf8(text, at);
      starts_.push_back(at);
      classes_.push_back(character.valid ? char_class(character.point) : CharClass::other);
      at += character.length;
    }
    starts_.push_back(text.size());
  }

  std::vector<std::string_view> split() {
    const size_t count = classes_.size();
    size_t begin = 0;
    if (pretokenizer_.rule == Rule::single_digits) {
      for (size_t i = 0; i < count; ++i) {
        if (classes_[i] != CharClass::number) continue;
        split_span(begin, i);
        add(i, i + 1);
        begin = i + 1;
      }
    }
    split_span(begin, count);
    return std::move(words_);
  }

 private:
  const PreTokenizer& pretokenizer_;
  std::string_view text_;
  std::vector<size_t> starts_;  // byte at which each character begins, and the end
  std::vector<CharClass> classes_;
  size_t end_ = 0;  // characters that the rules may see
  std::vector<std::string_view> words_;

  void add(size_t begin, size_t end) { words_.push_back(text_.substr(starts_[begin], starts_[end] - starts_[begin])); }
  bool is(size_t i, CharClass wanted) const { return i < end_ && classes_[i] == wanted; }
  bool byte_is(size_t i, char wanted) const { return i < end_ && text_[starts_[i]] == wanted; }
  bool line_end(size_t i) const { return byte_is(i, '\n') || byte_is(i, '\r'); }
  size_t run(size_t i, CharClass wanted) const {
    while (is(i, wanted)) ++i;
    return i;
  }

  void split_span(size_t begin, size_t end) {
    end_ = end;
    for (size_t i = begin; i < end;) {
      const size_t next = pretokenizer_.rule == Rule::llama3 ? llama3_word(i) : gpt2_word(i);
      add(i, next);
      i = next;
    }
  }

  /// The end of 's 't 're 've 'm 'll 'd at i, or i.
  size_t contraction(size_t i, bool any_case) const {
    if (!byte_is(i, '\'')) return i;
    const auto letter = [&](size_t at) -> char {
      if (at >= end_) return 0;
      const char c = text_[starts_[at]];
      return any_case && c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    };
    const char first = letter(i + 1), second = letter(i + 2);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
    if ((first == 'r' || first == 'v') && second == 'e') return i + 3;
    return first == 'l' && second == 'l' ? i + 3 : i;
  }

  /// `\s+(?!\S)|\s+` at a space: all spaces but the last if something follows and more than one is there.
  size_t spaces(size_t i) const {
    const size_t end = run(i, CharClass::space);
    return end < end_ && end - i > 1 ? end - 1 : end;
  }

  size_t gpt2_word(size_t i) const {
    if (const size_t end = contraction(i, false); end > i) return end;
    const size_t start = byte_is(i, ' ') && i + 1 < end_ && classes_[i + 1] != CharClass::space ? i + 1 : i;
    if (is(start, CharClass::space)) return spaces(i);
    return run(start, classes_[start]);
  }

  size_t llama3_word(size_t i) const {
    if (const size_t end = contraction(i, true); end > i) return end;
    // [^\r\n\p{L}\p{N}]?\p{L}+
    if (is(i, CharClass::letter)) return run(i, CharClass::letter);
    if (!is(i, CharClass::number) && !line_end(i) && is(i + 1, CharClass::letter)) return run(i + 1, CharClass::letter);
    if (is(i, CharClass::number)) {
      size_t end = i;
      while (is(end, CharClass::number) && end - i < size_t(pretokenizer_.digits)) ++end;
      return end;
    }
    // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    const size_t start = byte_is(i, ' ') ? i + 1 : i;
    if (is(start, CharClass::other)) {
      size_t end = run(start, CharClass::other);
      while (line_end(end)) ++end;
      return end;
    }
    // `\s*[\r\n]+`: to the last line end of the run of spaces
    const size_t end = run(i, CharClass::space);
    for (size_t last = end; last > i; --last) {
      if (line_end(last - 1)) return last;
    }
    return spaces(i);
  }
};

}  // namespace

PreTokenizer find_pretokenizer(std::string_view name) {
  for (const Named& each : known) {
    if (each.name == name) return each.pretokenizer;
  }
  std::string names;
  for (const Named& each : known) {
    if (!each.name.empty()) names += (names.empty() ? "" : ", ") + std::string(each.name);
  }
  fail(code::unsupported, "tokenizer.ggml.pre is \"", name.substr(0, 64), "\", expected one of ", names);
}

std::vector<std::string_view> split_words(const PreTokenizer& pretokenizer, std::string_view text) {
  return Splitter(pretokenizer, text).split();
}

}  // namespace minigpt4
