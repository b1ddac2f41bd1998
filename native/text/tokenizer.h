// Text to token ids and back: SentencePiece BPE (Llama, Vicuna) and byte-level BPE (SmolLM2, Llama 3).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace minigpt4 {

class GgufFile;

enum class PieceKind : uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// What a tokenizer is made of, from GGUF keys or from a `tokenizer.model`.
struct Vocabulary {
  enum class Model { sentencepiece, byte_level } model = Model::sentencepiece;
  std::vector<std::string> pieces;  // UTF-8; U+2581 for a space (sentencepiece), GPT-2's byte letters (byte_level)
  std::vector<float> scores;        // sentencepiece; higher merges first
  std::vector<PieceKind> kinds;
  std::vector<std::string> merges;  // byte_level: "left right", best first
  std::string pre;                  // byte_level: which way text is cut before merging ("smollm", "llama-bpe", …)
  int32_t bos = 1, eos = 2, unknown = 0, padding = -1;  // -1: none
  bool add_bos = true, add_eos = false, add_space_prefix = true, remove_extra_whitespaces = false;
};

/// From `tokenizer.ggml.*`. Errors: ERR_FILE_FORMAT (arrays of different lengths, ids out of range, missing keys),
/// ERR_UNSUPPORTED (another tokenizer model).
Vocabulary vocabulary_from_gguf(const GgufFile& file);
/// From a SentencePiece `tokenizer.model` (a protobuf, parsed here; BPE models only). Errors: ERR_FILE_FORMAT,
/// ERR_UNSUPPORTED.
Vocabulary vocabulary_from_sentencepiece(const void* bytes, size_t size);

class PieceMatcher;

class Tokenizer {
 public:
  virtual ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  const Vocabulary& vocabulary() const noexcept { return vocabulary_; }
  int32_t size() const noexcept { return int32_t(vocabulary_.pieces.size()); }

  /// Ids of one text: no BOS, no EOS, control pieces in the text not parsed; user-defined ones are. A non-empty
  /// SentencePiece text gets its own dummy space when the vocabulary says so. Invalid UTF-8 becomes byte tokens; never
  /// fails (but for want of memory). Time is n log n in the text's length.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// Like encode, but the strings of control pieces and of the unknown piece (`<s>`, `</s>`, `<unk>`, …) become their
  /// ids, the longest where several match, and every fragment between them is encoded on its own with its own dummy
  /// space, as the slow LlamaTokenizer does.
  std::vector<int32_t> encode_with_specials(std::string_view text) const;
  /// The id of a piece by its text, -1 if there is none.
  int32_t id_of(std::string_view piece) const noexcept;
  /// Bytes that a token adds to the text (U+2581 back to a space, byte tokens to their byte, control pieces and the
  /// unknown piece to nothing). Ids out of range: ERR_ARGUMENT.
  virtual std::string bytes_of(int32_t id) const = 0;
  /// True when the first piece that adds text gives its leading space back (it came from the dummy prefix); a byte
  /// token's space is the text's own.
  bool drops_leading_space(int32_t first) const noexcept;
  /// The whole text: bytes of all ids, one leading space of the dummy prefix dropped, invalid UTF-8 as U+FFFD.
  std::string decode(const std::vector<int32_t>& ids) const;

 protected:
  explicit Tokenizer(Vocabulary vocabulary);
  Vocabulary vocabulary_;
  /// ERR_ARGUMENT unless 0 <= id < size().
  void check_id(int32_t id) const;

 private:
  struct Index;
  std::unique_ptr<const Index> index_;  // piece -> id, and where control pieces begin
};

/// Errors: ERR_FILE_FORMAT (parts of different lengths, a score that is not finite, a byte piece that names no byte, a
/// merge of pieces that are not in the vocabulary), ERR_UNSUPPORTED (an unknown `pre`).
std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary);

}  // namespace minigpt4
