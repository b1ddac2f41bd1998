// The next token of everybody whose rows are complete: logits, and a draw from them where they lie. Nothing but ids leaves
// the backend.
#pragma once

#include <cstdint>
#include <vector>

#include "models/llama.h"
#include "models/scratch.h"

namespace minigpt4 {

/// Logits are computed for so many rows at a time: a vocabulary of 32,000 floats is 128 KB a row, and the output's weights
/// are read once for all of them.
inline constexpr int kLogitRows = 32;

/// Guesses of all answers that a pass may compute with: rows that share the reading of the weights with the last tokens'.
/// With many more the arithmetic is what a pass takes, and everybody waits for it.
inline constexpr int kMostGuesses = 32;

class NextTokens {
 public:
  /// `max_answers` that go on together; ids from `among` on are never drawn. `llama`: of max_logits kLogitRows at least.
  NextTokens(Llama& llama, int vocab, int max_answers, int among);

  /// A place for the ids that an answer has generated, none yet. There are max_answers.
  uint32_t* take_place();
  void give_place(uint32_t* place);
  /// Places for draws behind guesses, from number `first` of kMostGuesses on: in the first `ids` and the first guess are
  /// marked, in the next one more guess. They stand until their numbers are given again.
  std::vector<uint32_t*> mark(int first, const std::vector<int32_t>& ids, const std::vector<int32_t>& guesses);
  /// An answer's place becomes what a place behind a guess has become.
  void keep(uint32_t* place, const uint32_t* behind);

  /// What the next draw() reads: rows of x, and how to draw from each.
  void upload(const std::vector<int32_t>& rows, const std::vector<Ops::Draw>& draws);
  /// Draws from n rows of x. Ops of the backend alone, always the same ones for the same n: may be recorded.
  void draw(const float* x, int n);
  /// What was drawn: n ids. Where one is -1 - j, logit j is not finite.
  std::vector<int32_t> download(int n);

  /// Logit `id` of a row of x, by index, as draw() saw it.
  float logit(const float* x, int32_t row, int id);
  /// y[n, V], in memory that the next call uses again: logits of the n <= kLogitRows rows of x from `first` on.
  const float* logits(const float* x, int first, int n);

 private:
  Ops& ops_;
  Llama& llama_;
  int vocab_, among_;
  int64_t place_words_;
  Buffer<float> logits_;         // [kLogitRows or fewer, V]
  Buffer<uint32_t> generated_;   // [max_answers + kMostGuesses][(V + 31) / 32]
  Mirrored<int32_t> rows_;       // [max_answers + kMostGuesses or kLogitRows]
  Buffer<Ops::Draw> draws_;      // [max_answers + kMostGuesses]
  Buffer<int32_t> ids_;          // [max_answers + kMostGuesses]
  std::vector<uint32_t*> free_;  // answers' places in generated_
  uint32_t* behind_;             // the places behind guesses
};

}  // namespace minigpt4
