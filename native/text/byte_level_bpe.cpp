// Merging inside a word is a heap over a doubly linked list, so that a word of a megabyte is n log n too.
#include "text/byte_level_bpe.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "text/utf8.h"

namespace minigpt4 {
namespace {

constexpr uint32_t none = std::numeric_limits<uint32_t>::max();

/// GPT-2's letter of each byte: printable Latin-1 stands for itself, the others for U+0100 and up in order.
const std::array<char32_t, 256>& byte_letters() {
  static const std::array<char32_t, 256> letters = [] {
    std::array<char32_t, 256> made{};
    char32_t next = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      made[byte] = printable ? byte : next++;
    }
    return made;
  }();
  return letters;
}

/// The byte that a letter stands for, -1 if none.
int byte_of_letter(char32_t point) {
  static const std::array<int16_t, 324> bytes = [] {
    std::array<int16_t, 324> made;
    made.fill(-1);
    for (int byte = 0; byte < 256; ++byte) made[byte_letters()[size_t(byte)]] = int16_t(byte);
    return made;
  }();
  return point < bytes.size() ? bytes[point] : -1;
}

}  // namespace

/// Scratch of one call of encode, kept from word to word.
struct ByteLevelBpe::Word {
  struct Symbol {
    int32_t id;  // -1: merged into its left neighbour
    uint32_t previous, next;
  };
  struct Candidate {
    uint64_t order;  // rank, then position: the smallest comes first
    uint32_t right;
    int32_t left_id, right_id, id;
    uint32_t left() const { return uint32_t(order); }
    bool operator<(const Candidate& other) const { return order > other.order; }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> candidates;  // a heap
  std::string letters;

  void consider(const ByteLevelBpe& bpe, uint32_t left, uint32_t right) {
    if (left == none || right == none) return;
    const int32_t left_id = symbols[left].id, right_id = symbols[right].id;
    const auto found = bpe.merges_.find(uint64_t(left_id) << 32 | uint32_t(right_id));
    if (found == bpe.merges_.end()) return;
    candidates.push_back({uint64_t(found->second.rank) << 32 | left, right, left_id, right_id, found->second.id});
    std::push_heap(candidates.begin(), candidates.end());
  }

  void merge(const ByteLevelBpe& bpe) {
    for (uint32_t i = 1; i < symbols.size(); ++i) consider(bpe, i - 1, i);
    while (!candidates.empty()) {
      const Candidate top = candidates.front();
      std::pop_heap(candidates.begin(), candidates.end());
      candidates.pop_back();
      Symbol& left = symbols[top.left()];
      Symbol& right = symbols[top.right];
      // stale if a side has changed since, or the left one has another neighbour now
      if (left.id != top.left_id || right.id != top.right_id || left.next != top.right) continue;
      left.id = top.id;
      left.next = right.next;
      if (right.next != none) symbols[right.next].previous = top.left();
      right.id = -1;
      consider(bpe, left.previous, top.left());
      consider(bpe, top.left(), left.next);
    }
  }
};

ByteLevelBpe::ByteLevelBpe(Vocabulary vocabulary)
    : Tokenizer(std::move(vocabulary)), pretokenizer_(find_pretokenizer(vocabulary_.pre)) {
  for (size_t byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, byte_letters()[byte]);
    byte_ids_[byte] = id_of(letter);
  }
  for (int32_t id = 0; id < size(); ++id) {
    if (vocabulary_.kinds[size_t(id)] == PieceKind::user_defined) user_defined_.add(vocabulary_.pieces[size_t(id)], id);
  }
  add_merges();
}

void ByteLevelBpe::add_merges() {
  merges_.reserve(vocabulary_.merges.size());
  for (size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) {
    const std::string& merge = vocabulary_.merges[rank];
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      fail(code::file_format, "merge ", rank, " is \"", merge.substr(0, 64),
           "\", expected two pieces with a space between");
    }
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const int32_t left_id = id_of(left), right_id = id_of(right), id = id_of(left + right);
    if (left_id < 0 || right_id < 0 || id < 0) {
      fail(code::file_format, "merge ", rank, " is \"", merge.substr(0, 64),
           "\", but its parts or their union are not in the vocabulary");
    }
    merges_.emplace(uint64_t(left_id) << 32 | uint32_t(right_id), Merge{uint32_t(rank), id});  // the first rank counts
  }
}

void ByteLevelBpe::encode_words(std::string_view text, Word& word, std::vector<int32_t>& ids) const {
  for (const std::string_view bytes : split_words(pretokenizer_, text)) {
    if (pretokenizer_.whole_words) {
      word.letters.clear();
      for (const char c : bytes) append_utf8(word.letters, byte_letters()[static_cast<unsigned char>(c)]);
      const int32_t id = id_of(word.letters);
      if (id >= 0) {
        ids.push_back(id);
        continue;
      }
    }
    word.symbols.clear();
    for (const char c : bytes) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      if (id < 0) continue;
      const auto index = uint32_t(word.symbols.size());
      word.symbols.push_back({id, index - 1, index + 1});  // index 0: none before it
    }
    if (word.symbols.empty()) continue;
    word.symbols.back().next = none;
    word.merge(*this);
    for (uint32_t i = 0; i != none; i = word.symbols[i].next) ids.push_back(word.symbols[i].id);
  }
}

std::vector<int32_t> ByteLevelBpe::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  Word word;
  for (size_t from = 0; from < text.size();) {
    const PieceMatcher::Match match = user_defined_.find(text, from);
    if (match.at > from) encode_words(text.substr(from, match.at - from), word, ids);
    if (match.length > 0) ids.push_back(match.id);
    from = match.at + match.length;
  }
  return ids;
}

std::string ByteLevelBpe::bytes_of(int32_t id) const {
  check_id(id);
  const std::string& piece = vocabulary_.pieces[size_t(id)];
  const PieceKind kind = vocabulary_.kinds[size_t(id)];
  if (kind == PieceKind::control || kind == PieceKind::unknown) return {};
  if (kind == PieceKind::user_defined) return piece;  // stands in the text as it is written
  std::string bytes;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Character character = read_utf8(piece, at);
    const int byte = character.valid ? byte_of_letter(character.point) : -1;
    if (byte >= 0) {
      bytes += char(byte);
    } else {
      bytes += piece.substr(at, character.length);
    }
    at += character.length;
  }
  return bytes;
}

}  // namespace minigpt4
