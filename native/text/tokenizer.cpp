// What both kinds of tokenizer share: the piece index, control pieces in a text, decoding.
#include "text/tokenizer.h"

#include <unordered_map>

#include "core/error.h"
#include "text/byte_level_bpe.h"
#include "text/detokenizer.h"
#include "text/piece_matcher.h"
#include "text/sentencepiece_bpe.h"
#include "text/vocabulary.h"

namespace minigpt4 {

struct Tokenizer::Index {
  std::unordered_map<std::string_view, int32_t> ids;
  PieceMatcher specials;
};

Tokenizer::Tokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
  check_vocabulary(vocabulary_);
  auto index = std::make_unique<Index>();
  index->ids.reserve(vocabulary_.pieces.size());
  for (int32_t id = 0; id < size(); ++id) {
    const std::string& piece = vocabulary_.pieces[size_t(id)];
    const PieceKind kind = vocabulary_.kinds[size_t(id)];
    index->ids.emplace(piece, id);  // of equal pieces the first counts
    if (kind == PieceKind::control || kind == PieceKind::unknown) index->specials.add(piece, id);
  }
  index_ = std::move(index);
}

Tokenizer::~Tokenizer() = default;

int32_t Tokenizer::id_of(std::string_view piece) const noexcept {
  const auto found = index_->ids.find(piece);
  return found == index_->ids.end() ? -1 : found->second;
}

void Tokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= size())
    fail(code::argument, "token id ", id, " is outside the vocabulary of ", size(), " pieces");
}

std::vector<int32_t> Tokenizer::encode_with_specials(std::string_view text) const {
  std::vector<int32_t> ids;
  for (size_t from = 0; from < text.size();) {
    const PieceMatcher::Match match = index_->specials.find(text, from);
    if (match.at > from) {
      const std::vector<int32_t> fragment = encode(text.substr(from, match.at - from));
      ids.insert(ids.end(), fragment.begin(), fragment.end());
    }
    if (match.length > 0) ids.push_back(match.id);
    from = match.at + match.length;
  }
  return ids;
}

bool Tokenizer::drops_leading_space(int32_t first) const noexcept {
  return (vocabulary_.add_space_prefix || vocabulary_.remove_extra_whitespaces) && first >= 0 && first < size() &&
         vocabulary_.kinds[size_t(first)] != PieceKind::byte;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  StreamingDetokenizer detokenizer(*this);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.finish();
}

std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary) {
  if (vocabulary.model == Vocabulary::Model::sentencepiece) {
    return std::make_unique<SentencePieceBpe>(std::move(vocabulary));
  }
  return std::make_unique<ByteLevelBpe>(std::move(vocabulary));
}

}  // namespace minigpt4
