#include "engine/draws.h"

#include <limits>

#include "core/error.h"

namespace minigpt4 {
namespace {

void check(bool valid, const char* option, double found, const char* expected) {
  if (!valid) fail(code::argument, option, " is ", found, ", expected ", expected);
}

}  // namespace

Draws::Draws(const SamplingOptions& options) : options_(options), rng_(options.seed) {
  constexpr float largest = std::numeric_limits<float>::max();
  // written so that NaN fails
  check(options.temperature >= 0.0f && options.temperature <= largest, "temperature", options.temperature, "0 or more");
  check(options.top_k >= 0, "top-k", options.top_k, "0 (off) or more");
  check(options.top_p > 0.0f && options.top_p <= 1.0f, "top-p", options.top_p, "more than 0 and at most 1");
  check(options.min_p >= 0.0f && options.min_p <= 1.0f, "min-p", options.min_p, "0 to 1");
  check(options.repetition_penalty > 0.0f && options.repetition_penalty <= largest, "repetition penalty",
        options.repetition_penalty, "more than 0");
}

Ops::Draw Draws::next(uint32_t* generated) {
  Ops::Draw draw;
  draw.temperature = options_.temperature;
  draw.top_k = options_.top_k;
  draw.top_p = options_.top_p;
  draw.min_p = options_.min_p;
  draw.penalty = options_.repetition_penalty;
  if (options_.temperature > 0.0f) draw.uniform = rng_.uniform();
  draw.generated = generated;
  return draw;
}

void fail_not_finite(int id, float logit) {
  fail(code::file_format, "logit ", id, " is ", logit,
       ", expected a finite number: the weights of the model file may be damaged");
}

}  // namespace minigpt4
