// Symbols form a doubly linked list over the normalised text; a heap of candidate merges, most of which are stale when
// they come up, makes it n log n.
#include "text/sentencepiece_bpe.h"

#include <algorithm>
#include <limits>
#include <queue>

#include "text/utf8.h"
#include "text/vocabulary.h"

namespace minigpt4 {
namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581
constexpr uint32_t none = std::numeric_limits<uint32_t>::max();

std::string with_spaces(std::string_view piece) {
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    if (piece.substr(at, space_mark.size()) == space_mark) {
      text += ' ';
      at += space_mark.size();
    } else {
      text += piece[at++];
    }
  }
  return text;
}

}  // namespace

SentencePieceBpe::SentencePieceBpe(Vocabulary vocabulary) : Tokenizer(std::move(vocabulary)) {
  std::vector<float> scores = vocabulary_.scores;
  std::sort(scores.begin(), scores.end(), std::greater<float>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  byte_ids_.fill(-1);
  mergeable_.reserve(vocabulary_.pieces.size());
  for (int32_t id = 0; id < size(); ++id) {
    const std::string& piece = vocabulary_.pieces[size_t(id)];
    const PieceKind kind = vocabulary_.kinds[size_t(id)];
    if (kind == PieceKind::byte) {
      int32_t& slot = byte_ids_[size_t(byte_of_piece(piece))];
      if (slot < 0) slot = id;
    } else if (kind == PieceKind::normal || kind == PieceKind::user_defined || kind == PieceKind::unused) {
      const auto rank =
          std::lower_bound(scores.begin(), scores.end(), vocabulary_.scores[size_t(id)], std::greater<float>());
      mergeable_.emplace(piece, Piece{id, uint32_t(rank - scores.begin()), kind == PieceKind::unused});
      longest_ = std::max(longest_, piece.size());
      if (kind == PieceKind::user_defined) user_defined_.add(piece, id);
    }
  }
}

std::string SentencePieceBpe::normalise_spaces(std::string_view text) const {
  const bool squeeze = vocabulary_.remove_extra_whitespaces;
  if (squeeze) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    text = text.substr(0, text.find_last_not_of(' ') + 1);
  }
  std::string normalised;
  if (text.empty()) return normalised;
  normalised.reserve(text.size() + 2 * size_t(std::count(text.begin(), text.end(), ' ')) + space_mark.size());
  if (vocabulary_.add_space_prefix) normalised += space_mark;
  char previous = 0;
  for (const char c : text) {
    if (c != ' ') {
      normalised += c;
    } else if (!squeeze || previous != ' ') {
      normalised += space_mark;
    }
    previous = c;
  }
  return normalised;
}

const SentencePieceBpe::Piece* SentencePieceBpe::find(std::string_view piece) const {
  if (piece.size() > longest_) return nullptr;
  const auto found = mergeable_.find(piece);
  return found == mergeable_.end() ? nullptr : &found->second;
}

/// One call of encode.
struct SentencePieceBpe::Run {
  struct Symbol {
    uint32_t begin, length;   // in the normalised text; length 0: merged into its left neighbour
    uint32_t previous, next;  // symbols; none at the ends
    bool frozen;              // a user-defined piece, which nothing merges with
  };
  struct Candidate {
    uint64_t order;  // rank of the merged piece, then position: the smallest comes first
    uint32_t right, length;
    uint32_t left() const { return uint32_t(order); }
    bool operator<(const Candidate& other) const { return order > other.order; }
  };

  const SentencePieceBpe& bpe;
  const std::string text;
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate> candidates;
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> parts_of_unused;
  std::vector<int32_t> ids;
  bool last_was_unknown = false;

  Run(const SentencePieceBpe& tokenizer, std::string normalised) : bpe(tokenizer), text(std::move(normalised)) {}

  std::string_view view(uint32_t begin, uint32_t length) const { return std::string_view(text).substr(begin, length); }
  std::string_view view(const Symbol& symbol) const { return view(symbol.begin, symbol.length); }

  void cut() {
    PieceMatcher::Match user = bpe.user_defined_.find(text, 0);
    for (size_t at = 0; at < text.size();) {
      const bool frozen = at == user.at;
      const size_t length = frozen ? user.length : read_utf8(text, at).length;
      const auto index = uint32_t(symbols.size());
      symbols.push_back({uint32_t(at), uint32_t(length), index - 1, index + 1, frozen});  // index 0: none before it
      at += length;
      if (at > user.at) user = bpe.user_defined_.find(text, at);
    }
    symbols.back().next = none;
  }

  void consider(uint32_t left, uint32_t right) {
    if (left == none || right == none || symbols[left].frozen || symbols[right].frozen) return;
    const uint32_t length = symbols[left].length + symbols[right].length;
    const std::string_view joined = view(symbols[left].begin, length);
    const Piece* piece = bpe.find(joined);
    if (!piece) return;
    candidates.push({uint64_t(piece->rank) << 32 | left, right, length});
    if (piece->unused) parts_of_unused[joined] = {view(symbols[left]), view(symbols[right])};
  }

  void merge() {
    for (uint32_t i = 1; i < symbols.size(); ++i) consider(i - 1, i);
    while (!candidates.empty()) {
      const Candidate top = candidates.top();
      candidates.pop();
      Symbol& left = symbols[top.left()];
      Symbol& right = symbols[top.right];
      // stale if either side is gone or has grown since
      if (left.length == 0 || right.length == 0 || left.length + right.length != top.length) continue;
      left.length = top.length;
      left.next = right.next;
      if (right.next != none) symbols[right.next].previous = top.left();
      right.length = 0;
      consider(left.previous, top.left());
      consider(top.left(), left.next);
    }
  }

  void emit(std::string_view piece) {
    const Piece* found = bpe.find(piece);
    if (found && found->unused) {
      // an unused piece falls back to the two that made it, and those likewise; a stack, since a file may nest deeply
      std::vector<std::string_view> pending{piece};
      while (!pending.empty()) {
        const std::string_view top = pending.back();
        pending.pop_back();
        const Piece* known = bpe.find(top);
        const auto parts = known && known->unused ? parts_of_unused.find(top) : parts_of_unused.end();
        if (parts == parts_of_unused.end()) {
          emit_whole(top, known);
        } else {
          pending.push_back(parts->second.second);
          pending.push_back(parts->second.first);
        }
      }
    } else {
      emit_whole(piece, found);
    }
  }

  void emit_whole(std::string_view piece, const Piece* found) {
    if (found) {
      ids.push_back(found->id);
      last_was_unknown = false;
      return;
    }
    for (const char c : piece) {
      const int32_t id = bpe.byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0) {
        ids.push_back(id);
        last_was_unknown = false;
      } else if (!last_was_unknown && bpe.vocabulary_.unknown >= 0) {
        ids.push_back(bpe.vocabulary_.unknown);  // one for a run of unknown characters
        last_was_unknown = true;
      }
    }
  }
};

std::vector<int32_t> SentencePieceBpe::encode(std::string_view text) const {
  Run run(*this, normalise_spaces(text));
  if (run.text.empty()) return {};
  run.cut();
  run.merge();
  for (uint32_t i = 0; i != none; i = run.symbols[i].next) run.emit(run.view(run.symbols[i]));
  return std::move(run.ids);
}

std::string SentencePieceBpe::bytes_of(int32_t id) const {
  check_id(id);
  const std::string& piece = vocabulary_.pieces[size_t(id)];
  switch (vocabulary_.kinds[size_t(id)]) {
    case PieceKind::unknown:
    case PieceKind::control:
      return {};
    case PieceKind::byte:
      return std::string(1, char(byte_of_piece(piece)));
    default:
      return with_spaces(piece);
  }
}

}  // namespace minigpt4
