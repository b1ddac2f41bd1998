// Tokenizers that several tests use.
#pragma once

#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "check.h"
#include "text/tokenizer.h"

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) minigpt4::fail(minigpt4::code::file_not_found, "the test's file ", path, " is missing");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline minigpt4::Vocabulary sentencepiece_vocabulary(const std::string& fixture) {
  const std::string bytes = read_bytes(check::fixture(fixture));
  return minigpt4::vocabulary_from_sentencepiece(bytes.data(), bytes.size());
}

/// Llama's 32,000 pieces.
inline const minigpt4::Tokenizer& llama_tokenizer() {
  static const std::unique_ptr<minigpt4::Tokenizer> tokenizer =
      minigpt4::make_tokenizer(sentencepiece_vocabulary("llama-tokenizer/tokenizer.model"));
  return *tokenizer;
}

/// "1 2 3", for messages.
inline std::string listed(const std::vector<int32_t>& ids) {
  std::ostringstream text;
  for (const int32_t id : ids) text << (text.tellp() > 0 ? " " : "") << id;
  return text.str();
}

/// A byte-level vocabulary: <|end|> (control), <tool> (user-defined), the 256 letters of bytes, and what `merges` join.
inline minigpt4::Vocabulary byte_level_vocabulary(const std::vector<std::string>& merges, const std::string& pre) {
  using minigpt4::PieceKind;
  minigpt4::Vocabulary vocabulary;
  vocabulary.model = minigpt4::Vocabulary::Model::byte_level;
  vocabulary.pieces = {"<|end|>", "<tool>"};
  vocabulary.kinds = {PieceKind::control, PieceKind::user_defined};
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    const int point = printable ? byte : next++;
    vocabulary.pieces.push_back(point < 128 ? std::string(1, char(point))
                                            : std::string{char(0xC0 | point >> 6), char(0x80 | (point & 63))});
    vocabulary.kinds.push_back(PieceKind::normal);
  }
  for (const std::string& merge : merges) {
    std::string piece = merge;
    piece.erase(piece.find(' ', 1), 1);
    vocabulary.pieces.push_back(piece);
    vocabulary.kinds.push_back(PieceKind::normal);
  }
  vocabulary.merges = merges;
  vocabulary.pre = pre;
  vocabulary.bos = vocabulary.unknown = -1;
  vocabulary.eos = 0;
  vocabulary.add_space_prefix = false;
  return vocabulary;
}
