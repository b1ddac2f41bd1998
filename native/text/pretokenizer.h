// Cuts text into the words inside which byte-level BPE merges, the way the model's training data was cut.
#pragma once

#include <string_view>
#include <vector>

namespace minigpt4 {

/// What `tokenizer.ggml.pre` stands for.
struct PreTokenizer {
  enum class Rule {
    gpt2,           // contractions, words, numbers and symbols each with one space before, runs of spaces
    single_digits,  // gpt2, after every number character was cut out on its own (SmolLM2, StarCoder, Command R, …)
    llama3,         // one leading symbol may join a word, numbers in groups, line ends stay with symbols
  };
  Rule rule = Rule::gpt2;
  int digits = 3;            // llama3: number characters a group holds at most
  bool whole_words = false;  // a word that is in the vocabulary is its token, whatever the merges say
};

/// ERR_UNSUPPORTED if the name is not known; "" and "default" are gpt2.
PreTokenizer find_pretokenizer(std::string_view name);

/// Views into text that together are text, none empty. Invalid UTF-8 counts as symbols, a byte sequence each.
std::vector<std::string_view> split_words(const PreTokenizer& pretokenizer, std::string_view text);

}  // namespace minigpt4
