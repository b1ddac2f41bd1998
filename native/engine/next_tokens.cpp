#include "engine/next_tokens.h"

#include <algorithm>
#include <numeric>

namespace minigpt4 {

NextTokens::NextTokens(Llama& llama, int vocab, int max_answers, int among)
    : ops_(llama.ops()),
      llama_(llama),
      vocab_(vocab),
      among_(among),
      place_words_((int64_t(vocab) + 31) / 32),
      logits_(ops_, int64_t(kLogitRows) * vocab),
      generated_(ops_, (max_answers + kMostGuesses) * place_words_),
      rows_(ops_, std::max(max_answers + kMostGuesses, kLogitRows)),
      draws_(ops_, max_answers + kMostGuesses),
      ids_(ops_, max_answers + kMostGuesses),
      behind_(generated_ + max_answers * place_words_) {
  for (int i = max_answers; i-- > 0;) free_.push_back(generated_ + i * place_words_);
}

uint32_t* NextTokens::take_place() {
  uint32_t* const place = free_.back();
  const std::vector<uint32_t> none(size_t(place_words_), 0);
  ops_.upload(place, none.data(), none.size() * sizeof(uint32_t));
  free_.pop_back();
  return place;
}

void NextTokens::give_place(uint32_t* place) { free_.push_back(place); }

std::vector<uint32_t*> NextTokens::mark(int first, const std::vector<int32_t>& ids,
                                        const std::vector<int32_t>& guesses) {
  std::vector<uint32_t> marks, so_far(size_t(place_words_), 0);
  const auto set = [&](int32_t id) { so_far[size_t(id / 32)] |= uint32_t(1) << (id % 32); };
  for (const int32_t id : ids) set(id);
  std::vector<uint32_t*> places;
  for (const int32_t guess : guesses) {
    set(guess);
    marks.insert(marks.end(), so_far.begin(), so_far.end());
    places.push_back(behind_ + (first + int(places.size())) * place_words_);
  }
  ops_.upload(places.front(), marks.data(), marks.size() * sizeof(uint32_t));
  return places;
}

void NextTokens::keep(uint32_t* place, const uint32_t* behind) {
  ops_.copy(place, behind, size_t(place_words_) * sizeof(uint32_t));
}

void NextTokens::upload(const std::vector<int32_t>& rows, const std::vector<Ops::Draw>& draws) {
  rows_.set(rows);
  ops_.upload(draws_, draws.data(), draws.size() * sizeof(Ops::Draw));
}

void NextTokens::draw(const float* x, int n) {
  for (int at = 0; at < n; at += kLogitRows) {
    const int count = std::min(kLogitRows, n - at);
    llama_.logits(logits_, x, rows_ + at, count);
    ops_.sample(ids_ + at, logits_, draws_ + at, count, vocab_, among_);
  }
}

std::vector<int32_t> NextTokens::download(int n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  ops_.download(ids.data(), ids_, ids.size() * sizeof(int32_t));
  return ids;
}

float NextTokens::logit(const float* x, int32_t row, int id) {
  const float* row_of_logits = logits(x, row, 1);
  float logit = 0;
  ops_.download(&logit, row_of_logits + id, sizeof logit);
  return logit;
}

const float* NextTokens::logits(const float* x, int first, int n) {
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), first);
  rows_.set(rows);
  llama_.logits(logits_, x, rows_, n);
  return logits_;
}

}  // namespace minigpt4
