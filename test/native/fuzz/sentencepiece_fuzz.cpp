// Damaged tokenizer.model files: parsing one and using what comes out gives token ids or an Error. Usage:
// sentencepiece_fuzz SECONDS [SEED].
#include <stdexcept>

#include "fuzz/mutator.h"
#include "text/tokenizer.h"

using namespace minigpt4;

namespace {

std::string field(int number, const std::string& bytes) {
  return std::string{char(number << 3 | 2), char(bytes.size())} + bytes;
}

/// kind as in PieceKind; the score's four bytes hold a small negative number.
std::string piece(const std::string& text, int kind, char rank) {
  return field(1, field(1, text) + std::string{0x15, 0, 0, char(0x80 + rank), char(0xC0), 0x18, char(kind)});
}

/// Pieces of every kind, a trainer's and a normaliser's message: every branch of the parser.
std::string healthy_model() {
  const std::string mark = "\xE2\x96\x81";
  std::string model = piece("<unk>", 2, 0) + piece("<s>", 3, 0) + piece("</s>", 3, 0) + piece("<0x41>", 6, 0) +
                      piece("<0xE2>", 6, 0) + piece("<tool>", 4, 0);
  char rank = 1;
  for (const std::string& text :
       {mark, std::string("a"), std::string("b"), mark + "a", std::string("ab"), mark + "ab"}) {
    model += piece(text, text == "ab" ? 5 : 1, rank++);
  }
  const std::string trainer = std::string{0x18, 2, char(0xC0), 0x02, 0};  // BPE, unk_id 0
  const std::string normalizer = field(1, "identity") + field(2, "") + std::string{0x18, 1, 0x20, 0, 0x28, 1};
  return model + field(2, trainer) + field(3, normalizer);
}

void use(const std::string& bytes) {
  const std::unique_ptr<Tokenizer> tokenizer =
      make_tokenizer(vocabulary_from_sentencepiece(bytes.data(), bytes.size()));
  for (const char* text : {"", "a b ab  abab<tool>A\xE2\x96\x81 \xFF", "<s>ab</s><unk>"}) {
    const std::vector<int32_t> ids = tokenizer->encode_with_specials(text);
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer->size()) throw std::logic_error("an id outside the vocabulary");
    }
    tokenizer->decode(ids);
    tokenizer->encode(text);
  }
}

}  // namespace

int main(int count, char** arguments) {
  return fuzz::run_target("sentencepiece_fuzz", count, arguments, {healthy_model()}, 0, use);
}
