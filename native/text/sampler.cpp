// Scores are filtered without sorting them: the cut of top-k is a value, that of top-p is found by halving a partly
// sorted copy, and the draw walks the ids in ascending order.
#include "text/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace minigpt4 {
namespace {

constexpr float largest = std::numeric_limits<float>::max();
constexpr float dropped = -std::numeric_limits<float>::infinity();  // a score that top-k took out

void check(bool valid, const char* option, double found, const char* expected) {
  if (!valid) fail(code::argument, option, " is ", found, ", expected ", expected);
}

void check_finite(const float* logits, size_t count) {
  bool finite = true;  // without an early end the loop is a vector's
  for (size_t id = 0; id < count; ++id) finite &= std::fabs(logits[id]) <= largest;
  if (finite) return;
  const auto id = std::find_if(logits, logits + count, [](float logit) { return !std::isfinite(logit); }) - logits;
  fail(code::file_format, "logit ", id, " is ", logits[id],
       ", expected a finite number: the weights of the model file may be damaged");
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options) : options_(options), rng_(options.seed) {
  // written so that NaN fails
  check(options.temperature >= 0.0f && options.temperature <= largest, "temperature", options.temperature, "0 or more");
  check(options.top_k >= 0, "top-k", options.top_k, "0 (off) or more");
  check(options.top_p > 0.0f && options.top_p <= 1.0f, "top-p", options.top_p, "more than 0 and at most 1");
  check(options.min_p >= 0.0f && options.min_p <= 1.0f, "min-p", options.min_p, "0 to 1");
  check(options.repetition_penalty > 0.0f && options.repetition_penalty <= largest, "repetition penalty",
        options.repetition_penalty, "more than 0");
}

int32_t Sampler::next(const float* logits, int vocab) {
  if (vocab < 1) fail(code::argument, "sampling from ", vocab, " logits, expected at least 1");
  const auto count = size_t(vocab);
  check_finite(logits, count);
  work_.assign(logits, logits + count);
  best_.reserve(count);
  generated_.resize(std::max(generated_.size(), (count + 63) / 64));
  penalise(vocab);
  const int32_t id =
      options_.temperature == 0.0f
          ? int32_t(std::max_element(work_.begin(), work_.end()) - work_.begin())  // the first of equal ones
          : draw(vocab);
  generated_[size_t(id) / 64] |= uint64_t(1) << (id % 64);
  return id;
}

void Sampler::penalise(int vocab) {
  const float penalty = options_.repetition_penalty;
  if (penalty == 1.0f) return;
  for (size_t word = 0; word * 64 < size_t(vocab); ++word) {
    for (uint64_t bits = generated_[word]; bits != 0; bits &= bits - 1) {
      const size_t id = word * 64 + size_t(std::countr_zero(bits));
      if (id >= size_t(vocab)) break;
      const float score = work_[id];
      work_[id] = std::clamp(score < 0.0f ? score * penalty : score / penalty, -largest, largest);
    }
  }
}

void Sampler::keep_top_k(int vocab) {
  if (options_.top_k == 0 || options_.top_k >= vocab) return;
  const auto kept = size_t(options_.top_k);
  if (kept * 32 < size_t(vocab)) {  // a small heap, which few scores enter
    best_.resize(kept);
    std::partial_sort_copy(work_.begin(), work_.end(), best_.begin(), best_.end(), std::greater<float>());
  } else {
    best_ = work_;
    std::nth_element(best_.begin(), best_.begin() + std::ptrdiff_t(kept - 1), best_.end(), std::greater<float>());
  }
  const float lowest = best_[kept - 1];  // what ties with the last one stays, as in the original
  for (float& score : work_) {
    if (score < lowest) score = dropped;
  }
}

void Sampler::keep_top_p(int vocab) {
  if (options_.top_p >= 1.0f) return;
  double total = 0.0;
  for (const float weight : work_) total += double(weight);
  // Weights below this make up less than 1 - top_p even if all are: they go in any case and need no sorting.
  const double negligible = (1.0 - double(options_.top_p)) * total / vocab;
  best_.clear();
  std::copy_if(work_.begin(), work_.end(), std::back_inserter(best_),
               [&](float weight) { return weight >= negligible; });
  // Finds how many stay: the fewest whose mass reaches top-p. [0, begin) stay for sure, [end, …) go for sure.
  const double wanted = double(options_.top_p) * total;
  double mass = 0.0;
  size_t begin = 0, end = best_.size();
  while (end - begin > 1) {
    const size_t middle = begin + (end - begin) / 2;
    const auto at = [&](size_t index) { return best_.begin() + std::ptrdiff_t(index); };
    std::nth_element(at(begin), at(middle), at(end), std::greater<float>());
    const double upper = std::accumulate(at(begin), at(middle), 0.0);
    if (mass + upper >= wanted) {
      end = middle;
    } else {
      mass += upper;
      begin = middle;
    }
  }
  const float lowest = best_[begin];
  // of those that tie with the last one the lower ids stay (the original's sort leaves open which)
  auto ties = std::count(best_.begin(), best_.begin() + std::ptrdiff_t(end), lowest);
  for (float& weight : work_) {
    if (weight < lowest || (weight == lowest && ties-- <= 0)) weight = 0.0f;
  }
}

int32_t Sampler::draw(int vocab) {
  keep_top_k(vocab);
  const float best = *std::max_element(work_.begin(), work_.end());
  for (float& score : work_) {
    if (score == dropped) {
      score = 0.0f;
    } else if (score == best) {
      score = 1.0f;  // whatever the temperature's division gives
    } else {
      score = std::exp((score - best) / options_.temperature);
    }
  }
  keep_top_p(vocab);
  double total = 0.0;
  for (float& weight : work_) {
    if (weight < options_.min_p) weight = 0.0f;
    total += double(weight);
  }
  double left = rng_.uniform() * total;
  int32_t last = 0;
  for (int32_t id = 0; id < vocab; ++id) {
    const float weight = work_[size_t(id)];
    if (weight == 0.0f) continue;
    last = id;
    left -= double(weight);
    if (left < 0.0) break;
  }
  return last;  // rounding may leave a hair over after the last one
}

}  // namespace minigpt4
