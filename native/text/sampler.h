// Picks the next token from logits, in the order of the original's Hugging Face generation loop: repetition penalty,
// temperature, top-k, top-p, min-p, softmax, draw.
#pragma once

#include <cstdint>
#include <vector>

#include "core/rng.h"

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

class Sampler {
 public:
  /// Errors: ERR_ARGUMENT (temperature < 0, top_p outside (0, 1], top_k < 0, min_p outside [0, 1], penalty <= 0, NaN).
  explicit Sampler(const SamplingOptions& options);
  /// Draws from logits[vocab] (not changed). The returned id counts as generated from now on. Errors: ERR_FILE_FORMAT with
  /// the first id whose logit is not finite, ERR_ARGUMENT if vocab < 1. Takes time proportional to vocab and, after the
  /// first call, no memory. The same options and logits give the same ids (as far as C libraries' exp round alike).
  int32_t next(const float* logits, int vocab);

 private:
  SamplingOptions options_;
  Rng rng_;
  std::vector<uint64_t> generated_;  // a bit an id
  std::vector<float> work_;          // [vocab]: scores, then weights relative to the best
  std::vector<float> best_;          // scores or weights among which a cut is looked for

  void penalise(int vocab);
  int32_t draw(int vocab);
  void keep_top_k(int vocab);
  void keep_top_p(int vocab);
};

}  // namespace minigpt4
