// Reads a SentencePiece `tokenizer.model`: the few protobuf fields that a BPE vocabulary needs, every length checked.
#include <cstring>
#include <unordered_set>

#include "core/error.h"
#include "text/vocabulary.h"

namespace minigpt4 {
namespace {

/// A protobuf message, field by field. Every malformed byte is ERR_FILE_FORMAT.
class Message {
 public:
  explicit Message(std::string_view bytes) : bytes_(bytes) {}

  /// Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    wire_ = int(key & 7);
    if (field_ == 0 || field_ > 0x1FFFFFFF)
      fail(code::file_format, where(), "field number ", field_, ", expected 1 to 2^29 - 1");
    switch (wire_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        content_ = take(8);
        break;
      case 2:
        content_ = take(varint());
        break;
      case 5:
        content_ = take(4);
        break;
      default:
        fail(code::file_format, where(), "wire type ", wire_, ", expected 0, 1, 2 or 5");
    }
    return true;
  }
  uint64_t field() const { return field_; }
  std::string_view bytes() const { return expect(2), content_; }
  uint64_t number() const { return expect(0), number_; }
  bool flag() const { return number() != 0; }
  float real() const {
    expect(5);
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) bits |= uint32_t(static_cast<unsigned char>(content_[i])) << (8 * i);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

 private:
  std::string_view bytes_, content_;
  size_t at_ = 0;
  uint64_t field_ = 0, number_ = 0;
  int wire_ = 0;

  std::string where() const { return "tokenizer.model: at byte " + std::to_string(at_) + " of a message: "; }
  void expect(int wire) const {
    if (wire_ != wire)
      fail(code::file_format, where(), "field ", field_, " has wire type ", wire_, ", expected ", wire);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == bytes_.size()) fail(code::file_format, where(), "the file ends within a number");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= shift < 64 ? uint64_t(byte & 0x7F) << shift : 0;
      if (byte < 0x80) return value;
    }
    fail(code::file_format, where(), "a number of more than 10 bytes");
  }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_) {
      fail(code::file_format, where(), "a field of ", count, " bytes, but only ", bytes_.size() - at_, " are left");
    }
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }
};

/// Fields of the trainer's and the normaliser's messages, with the format's defaults.
struct Settings {
  uint64_t model_type = 1;  // 1 unigram, 2 BPE, 3 word, 4 char
  bool whitespace_as_suffix = false;
  std::string unknown = "<unk>", bos = "<s>", eos = "</s>", padding = "<pad>";
  bool add_space_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  bool has_character_map = false;
};

void read_trainer(std::string_view bytes, Settings& settings) {
  for (Message message(bytes); message.next();) {
    switch (message.field()) {
      case 3:
        settings.model_type = message.number();
        break;
      case 24:
        settings.whitespace_as_suffix = message.flag();
        break;
      case 45:
        settings.unknown = message.bytes();
        break;
      case 46:
        settings.bos = message.bytes();
        break;
      case 47:
        settings.eos = message.bytes();
        break;
      case 48:
        settings.padding = message.bytes();
        break;
      default:
        break;
    }
  }
}

void read_normalizer(std::string_view bytes, Settings& settings) {
  for (Message message(bytes); message.next();) {
    switch (message.field()) {
      case 2:
        settings.has_character_map = !message.bytes().empty();
        break;
      case 3:
        settings.add_space_prefix = message.flag();
        break;
      case 4:
        settings.remove_extra_whitespaces = message.flag();
        break;
      case 5:
        settings.escape_whitespaces = message.flag();
        break;
      default:
        break;
    }
  }
}

void read_piece(std::string_view bytes, Vocabulary& vocabulary) {
  std::string_view piece;
  float score = 0.0f;
  uint64_t kind = 1;
  for (Message message(bytes); message.next();) {
    switch (message.field()) {
      case 1:
        piece = message.bytes();
        break;
      case 2:
        score = message.real();
        break;
      case 3:
        kind = message.number();
        break;
      default:
        break;
    }
  }
  const size_t id = vocabulary.pieces.size();
  if (piece.empty()) fail(code::file_format, "tokenizer.model: piece ", id, " is empty, expected some text");
  if (kind < 1 || kind > 6)
    fail(code::file_format, "tokenizer.model: piece ", id, " has type ", kind, ", expected 1 to 6");
  vocabulary.pieces.emplace_back(piece);
  vocabulary.scores.push_back(score);
  vocabulary.kinds.push_back(PieceKind(kind));
}

void check_supported(const Settings& settings) {
  if (settings.model_type != 2) {
    fail(code::unsupported, "tokenizer.model: model type ", settings.model_type,
         ", expected 2 (BPE); unigram, word and ", "character models are not supported");
  }
  if (settings.has_character_map) {
    fail(code::unsupported,
         "tokenizer.model: it normalises characters by a table, expected the identity as Llama's has it");
  }
  if (settings.whitespace_as_suffix || !settings.escape_whitespaces) {
    fail(code::unsupported, "tokenizer.model: spaces as suffixes or not escaped, expected them as the prefix U+2581");
  }
}

/// The id of the piece of this text and kind, -1 if there is none.
int32_t find_piece(const Vocabulary& vocabulary, std::string_view text, PieceKind kind) {
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (vocabulary.kinds[id] == kind && vocabulary.pieces[id] == text) return int32_t(id);
  }
  return -1;
}

}  // namespace

Vocabulary vocabulary_from_sentencepiece(const void* bytes, size_t size) {
  Vocabulary vocabulary;
  Settings settings;
  for (Message model(std::string_view(static_cast<const char*>(bytes), size)); model.next();) {
    switch (model.field()) {
      case 1:
        read_piece(model.bytes(), vocabulary);
        break;
      case 2:
        read_trainer(model.bytes(), settings);
        break;
      case 3:
        read_normalizer(model.bytes(), settings);
        break;
      default:
        break;
    }
  }
  if (vocabulary.pieces.empty()) fail(code::file_format, "tokenizer.model: there is no piece in it (", size, " bytes)");
  check_supported(settings);
  std::unordered_set<std::string_view> seen;
  for (const std::string& piece : vocabulary.pieces) {
    if (!seen.insert(piece).second) {
      fail(code::file_format, "tokenizer.model: the piece \"", piece.substr(0, 64), "\" stands in it twice");
    }
  }
  vocabulary.add_space_prefix = settings.add_space_prefix;
  vocabulary.remove_extra_whitespaces = settings.remove_extra_whitespaces;
  vocabulary.unknown = find_piece(vocabulary, settings.unknown, PieceKind::unknown);
  vocabulary.bos = find_piece(vocabulary, settings.bos, PieceKind::control);
  vocabulary.eos = find_piece(vocabulary, settings.eos, PieceKind::control);
  vocabulary.padding = find_piece(vocabulary, settings.padding, PieceKind::control);
  vocabulary.add_bos = vocabulary.bos >= 0;
  check_vocabulary(vocabulary);
  return vocabulary;
}

}  // namespace minigpt4
