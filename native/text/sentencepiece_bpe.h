// SentencePiece BPE as Llama and Vicuna use it: merges of neighbouring symbols, best score first, bytes for the rest.
#pragma once

#include <array>
#include <unordered_map>

#include "text/piece_matcher.h"
#include "text/tokenizer.h"

namespace minigpt4 {

class SentencePieceBpe : public Tokenizer {
 public:
  explicit SentencePieceBpe(Vocabulary vocabulary);
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string bytes_of(int32_t id) const override;

 private:
  struct Piece {
    int32_t id;
    uint32_t rank;  // place of the score among all scores, best 0; equal scores share a rank
    bool unused;    // may be merged through, never stays
  };
  struct Run;
  std::unordered_map<std::string_view, Piece> mergeable_;
  std::array<int32_t, 256> byte_ids_;  // -1: no such piece
  PieceMatcher user_defined_;          // pieces as they stand in normalised text
  size_t longest_ = 0;                 // bytes of the longest mergeable piece

  std::string normalise_spaces(std::string_view text) const;
  const Piece* find(std::string_view piece) const;
};

}  // namespace minigpt4
