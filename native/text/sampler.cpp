// Scores are filtered without sorting them: the cut of top-k is a value, that of top-p is found by halving a partly
// sorted list, and the draw walks the ids in ascending order.
#include "text/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "core/error.h"

namespace minigpt4 {
namespace {

constexpr float largest = std::numeric_limits<float>::max();

void check(bool valid, const char* option, double found, const char* expected) {
  if (!valid) fail(code::argument, option, " is ", found, ", expected ", expected);
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
  for (size_t id = 0; id < count; ++id) {
    if (!std::isfinite(logits[id])) fail(code::internal, "logit ", id, " is ", logits[id], ", expected a finite number");
  }
  work_.assign(logits, logits + count);
  generated_.resize(std::max(generated_.size(), (count + 63) / 64));
  penalise(vocab);
  const auto best = std::max_element(work_.begin(), work_.end());  // the first of equal ones
  const int32_t id = options_.temperature == 0.0f ? int32_t(best - work_.begin()) : draw(vocab);
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
  best_.resize(size_t(options_.top_k));
  std::partial_sort_copy(work_.begin(), work_.end(), best_.begin(), best_.end(), std::greater<float>());
  const float lowest = best_.back();  // what ties with the last one stays, as in the original
  for (float& score : work_) {
    if (score < lowest) score = -std::numeric_limits<float>::infinity();
  }
}

void Sampler::keep_top_p(int vocab) {
  if (options_.top_p >= 1.0f) return;
  order_.clear();
  order_.reserve(size_t(vocab));
  double total = 0.0;
  for (int32_t id = 0; id < vocab; ++id) {
    if (work_[size_t(id)] == 0.0f) continue;
    order_.push_back(id);
    total += double(work_[size_t(id)]);
  }
  // best first; of equal ones the lower id (the original's sort leaves open which of them goes)
  const auto better = [&](int32_t a, int32_t b) {
    const float left = work_[size_t(a)], right = work_[size_t(b)];
    return left != right ? left > right : a < b;
  };
  // Finds how many stay: the fewest whose mass reaches top-p. [0, begin) stay for sure, [end, …) go for sure.
  const double wanted = double(options_.top_p) * total;
  double mass = 0.0;
  size_t begin = 0, end = order_.size();
  while (end - begin > 1) {
    const size_t middle = begin + (end - begin) / 2;
    const auto first = order_.begin();
    std::nth_element(first + std::ptrdiff_t(begin), first + std::ptrdiff_t(middle), first + std::ptrdiff_t(end), better);
    double half = 0.0;
    for (size_t i = begin; i < middle; ++i) half += double(work_[size_t(order_[i])]);
    if (mass + half >= wanted) {
      end = middle;
    } else {
      mass += half;
      begin = middle;
    }
  }
  for (size_t i = end; i < order_.size(); ++i) work_[size_t(order_[i])] = 0.0f;
}

int32_t Sampler::draw(int vocab) {
  keep_top_k(vocab);
  const float best = *std::max_element(work_.begin(), work_.end());
  for (float& score : work_) {
    const float distance = score - best;  // 0 or less; -inf where the score is dropped or the difference overflows
    score = distance == 0.0f ? 1.0f : std::exp(distance / options_.temperature);
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
