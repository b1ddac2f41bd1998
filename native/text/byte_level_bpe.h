// Byte-level BPE as GPT-2 brought it: text is cut into words, the bytes of a word are written as letters, and
// neighbouring pieces merge by the rank of their pair.
#pragma once

#include <array>
#include <unordered_map>

#include "text/piece_matcher.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

namespace minigpt4 {

class ByteLevelBpe : public Tokenizer {
 public:
  explicit ByteLevelBpe(Vocabulary vocabulary);
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string bytes_of(int32_t id) const override;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;  // of the joined piece
  };
  struct Word;
  PreTokenizer pretokenizer_;
  std::array<int32_t, 256> byte_ids_;           // -1: the vocabulary cannot write this byte, which is left out
  std::unordered_map<uint64_t, Merge> merges_;  // by left id << 32 | right id
  PieceMatcher user_defined_;

  void add_merges();
  void encode_words(std::string_view text, Word& word, std::vector<int32_t>& ids) const;
};

}  // namespace minigpt4
