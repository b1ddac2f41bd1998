// A vocabulary from the `tokenizer.ggml.*` keys of a GGUF file, and the checks of any vocabulary.
#include "text/vocabulary.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/gguf.h"

namespace minigpt4 {
namespace {

constexpr uint64_t absent_id = 0xFFFFFFFFu;  // how files write "no such token"

void check_id(const char* what, int32_t id, size_t pieces) {
  if (id >= -1 && (id < 0 || size_t(id) < pieces)) return;
  fail(code::file_format, "the vocabulary's ", what, " id is ", id, ", expected one below its ", pieces, " pieces");
}

void check_count(const char* what, size_t found, size_t pieces) {
  if (found == pieces) return;
  fail(code::file_format, "the vocabulary has ", pieces, " pieces but ", found, " ", what, ", expected one a piece");
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/// `otherwise` where the key is absent (-1 if that is no id of this vocabulary either).
int32_t id_key(const GgufFile& file, const char* name, int32_t otherwise, size_t pieces) {
  const std::string key = std::string("tokenizer.ggml.") + name;
  if (!file.find(key)) return otherwise >= 0 && size_t(otherwise) < pieces ? otherwise : -1;
  const uint64_t id = file.unsigned_key(key);
  if (id == absent_id) return -1;
  if (id >= pieces) {
    fail(code::file_format, file.path(), ": ", key, " is ", id, ", expected an id below the ", pieces, " tokens");
  }
  return int32_t(id);
}

void read_scores(const GgufFile& file, Vocabulary& vocabulary) {
  const std::vector<double> scores = file.floats_key("tokenizer.ggml.scores");
  vocabulary.scores.assign(scores.begin(), scores.end());
}

void read_kinds(const GgufFile& file, Vocabulary& vocabulary) {
  for (const int64_t kind : file.integers_key("tokenizer.ggml.token_type")) {
    if (kind < 1 || kind > 6) {
      fail(code::file_format, file.path(), ": token ", vocabulary.kinds.size(), " has type ", kind,
           ", expected 1 to 6");
    }
    vocabulary.kinds.push_back(PieceKind(kind));
  }
}

}  // namespace

int byte_of_piece(std::string_view piece) noexcept {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void check_vocabulary(const Vocabulary& vocabulary) {
  const size_t count = vocabulary.pieces.size();
  if (count == 0 || count > size_t(std::numeric_limits<int32_t>::max())) {
    fail(code::file_format, "the vocabulary has ", count, " pieces, expected at least one and fewer than 2^31");
  }
  check_count("kinds", vocabulary.kinds.size(), count);
  check_id("bos", vocabulary.bos, count);
  check_id("eos", vocabulary.eos, count);
  check_id("unknown", vocabulary.unknown, count);
  check_id("padding", vocabulary.padding, count);
  if (vocabulary.model != Vocabulary::Model::sentencepiece) return;
  check_count("scores", vocabulary.scores.size(), count);
  for (size_t id = 0; id < count; ++id) {
    if (!std::isfinite(vocabulary.scores[id])) {
      fail(code::file_format, "the score of piece ", id, " is ", vocabulary.scores[id], ", expected a finite number");
    }
    if (vocabulary.kinds[id] == PieceKind::byte && byte_of_piece(vocabulary.pieces[id]) < 0) {
      fail(code::file_format, "piece ", id, " is a byte named \"", vocabulary.pieces[id].substr(0, 32),
           "\", expected <0x00> to <0xFF>");
    }
  }
}

Vocabulary vocabulary_from_gguf(const GgufFile& file) {
  Vocabulary vocabulary;
  const std::string model = file.string_key("tokenizer.ggml.model");
  if (model != "llama" && model != "gpt2") {
    fail(code::unsupported, file.path(), ": tokenizer model \"", model.substr(0, 64),
         "\" is not supported, expected \"llama\" (SentencePiece) or \"gpt2\" (byte-level BPE)");
  }
  const bool sentencepiece = model == "llama";
  vocabulary.model = sentencepiece ? Vocabulary::Model::sentencepiece : Vocabulary::Model::byte_level;
  vocabulary.pieces = file.strings_key("tokenizer.ggml.tokens");
  const size_t count = vocabulary.pieces.size();
  if (sentencepiece) {
    read_scores(file, vocabulary);
    read_kinds(file, vocabulary);
  } else {
    vocabulary.merges = file.strings_key("tokenizer.ggml.merges");
    vocabulary.pre = file.string_key("tokenizer.ggml.pre", "default");
    if (file.find("tokenizer.ggml.token_type")) {
      read_kinds(file, vocabulary);
    } else {
      vocabulary.kinds.assign(count, PieceKind::normal);
    }
  }
  vocabulary.bos = id_key(file, "bos_token_id", sentencepiece ? 1 : -1, count);
  vocabulary.eos = id_key(file, "eos_token_id", sentencepiece ? 2 : -1, count);
  vocabulary.unknown = id_key(file, "unknown_token_id", sentencepiece ? 0 : -1, count);
  vocabulary.padding = id_key(file, "padding_token_id", -1, count);
  // Llama 3 files leave the flag out and mean yes
  const bool bos_by_default = sentencepiece || vocabulary.pre == "llama-bpe" || vocabulary.pre == "llama3";
  vocabulary.add_bos = file.bool_key("tokenizer.ggml.add_bos_token", bos_by_default && vocabulary.bos >= 0);
  vocabulary.add_eos = file.bool_key("tokenizer.ggml.add_eos_token", false);
  vocabulary.add_space_prefix = sentencepiece && file.bool_key("tokenizer.ggml.add_space_prefix", true);
  vocabulary.remove_extra_whitespaces =
      sentencepiece && file.bool_key("tokenizer.ggml.remove_extra_whitespaces", false);
  check_vocabulary(vocabulary);
  return vocabulary;
}

}  // namespace minigpt4
