// How one answer's tokens are drawn: its options, and its stream of random numbers. The drawing itself is the backend's
// (Ops::sample).
#pragma once

#include <cstdint>

#include "core/rng.h"
#include "ops/ops.h"

namespace minigpt4 {

/// Defaults: the original's `answer_prepare`, and the top-k of 50 that Hugging Face adds in silence.
struct SamplingOptions {
  float temperature = 1.0f;  // 0: greedy (the best logit, lowest id on a tie; of the others only the penalty acts)
  int top_k = 50;            // 0: off
  float top_p = 0.9f;        // 1: off
  float min_p = 0.0f;        // 0: off; drops tokens below min_p times the best probability
  float repetition_penalty = 1.05f;  // 1: off; over the ids already generated, each once (not the prompt)
  uint64_t seed = 0;
};

class Draws {
 public:
  /// Errors: ERR_ARGUMENT (temperature < 0, top_p outside (0, 1], top_k < 0, min_p outside [0, 1], penalty <= 0, NaN).
  explicit Draws(const SamplingOptions& options);
  /// The next token's. Takes a random number, unless the answer is greedy: every token must ask exactly once. The same
  /// options and logits give the same ids (as far as C libraries' exp round alike).
  Ops::Draw next(uint32_t* generated);

 private:
  SamplingOptions options_;
  Rng rng_;
};

/// ERR_FILE_FORMAT, about the logit that made Ops::sample refuse.
[[noreturn]] void fail_not_finite(int id, float logit);

}  // namespace minigpt4
