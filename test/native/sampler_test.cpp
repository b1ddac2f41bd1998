// Draws against Hugging Face's logits processors (ids kept and their probabilities, printed by transformers) and
// against a plain sorting implementation on random logits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "check.h"
#include "engine/draws.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

/// One answer's tokens, drawn as the engine draws them.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : draws_(options) {}

  int32_t next(const float* logits, int vocab) {
    const OnDevice<float> on_device(ops_, Floats(logits, logits + std::max(vocab, 0)));
    const OnDevice<Ops::Draw> draw(ops_, std::vector<Ops::Draw>{draws_.next(generated_)});
    const OnDevice<int32_t> id(ops_, size_t(1));
    ops_.sample(id, on_device, draw, 1, vocab, vocab);
    const int32_t found = id.values().front();
    if (found < 0) fail_not_finite(-1 - found, on_device.values()[size_t(-1 - found)]);
    return found;
  }

 private:
  Ops& ops_ = cpu(cpu_levels().back(), 1);
  Draws draws_;
  OnDevice<uint32_t> generated_{ops_, size_t(64)};  // of 2048 ids at most
};

SamplingOptions greedy(float penalty = 1.0f) {
  SamplingOptions options;
  options.temperature = 0.0f;
  options.repetition_penalty = penalty;
  return options;
}

SamplingOptions sampling(float temperature, int top_k, float top_p, float min_p, uint64_t seed = 1) {
  SamplingOptions options;
  options.temperature = temperature;
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  options.repetition_penalty = 1.0f;
  options.seed = seed;
  return options;
}

/// 40 different logits from -4 to 5.75, or (tied) ten values from -2 to 2.5, four times each.
std::vector<float> logits40(bool tied) {
  std::vector<float> logits;
  for (int i = 0; i < 40; ++i) {
    const int place = i * 17 % 40;
    logits.push_back(tied ? float(place - place % 4) * 0.125f - 2.0f : float(place) * 0.25f - 4.0f);
  }
  return logits;
}

std::map<int32_t, int> histogram(const SamplingOptions& options, const std::vector<float>& logits, int draws) {
  Sampler sampler(options);
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.next(logits.data(), int(logits.size()))];
  return counts;
}

/// The original's steps one after the other, by sorting: id to probability.
std::map<int32_t, double> reference(std::vector<double> scores, const std::vector<bool>& seen,
                                    const SamplingOptions& options) {
  const size_t count = scores.size();
  for (size_t i = 0; i < count; ++i) {
    if (seen[i])
      scores[i] = scores[i] < 0 ? scores[i] * double(options.repetition_penalty)
                                : scores[i] / double(options.repetition_penalty);
    scores[i] /= double(options.temperature);
  }
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[size_t(a)] < scores[size_t(b)]; });
  if (options.top_k > 0 && size_t(options.top_k) < count) order.erase(order.begin(), order.end() - options.top_k);
  const double best = scores[size_t(order.back())];
  double total = 0;
  for (const int32_t id : order) total += std::exp(scores[size_t(id)] - best);
  double cumulative = 0;
  std::map<int32_t, double> kept;
  for (const int32_t id : order) {
    const double probability = std::exp(scores[size_t(id)] - best) / total;
    cumulative += probability;
    if (options.top_p < 1.0f && cumulative <= 1.0 - double(options.top_p) && id != order.back()) continue;
    if (std::exp(scores[size_t(id)] - best) < double(options.min_p)) continue;
    kept[id] = probability;
  }
  total = 0;
  for (const auto& [id, probability] : kept) total += probability;
  for (auto& [id, probability] : kept) probability /= total;
  return kept;
}

}  // namespace

TEST("sampler: greedy takes the best, the lowest id on a tie") {
  const float logits[5] = {1.0f, 3.0f, -2.0f, 3.0f, 0.0f};
  Sampler sampler(greedy());
  for (int i = 0; i < 3; ++i) CHECK_EQUAL(sampler.next(logits, 5), 1);
}

TEST("sampler: the repetition penalty counts each generated id once") {
  Sampler sampler(greedy(2.0f));
  const float positive[3] = {4.0f, 3.0f, 1.5f};
  CHECK_EQUAL(sampler.next(positive, 3), 0);
  CHECK_EQUAL(sampler.next(positive, 3), 1);  // 2, 3, 1.5
  CHECK_EQUAL(sampler.next(positive, 3), 0);  // 2, 1.5, 1.5
  CHECK_EQUAL(sampler.next(positive, 3), 0);  // still 2: not divided twice
  const float negative[3] = {-1.0f, -1.5f, -1.75f};
  CHECK_EQUAL(sampler.next(negative, 3), 2);  // -2, -3, -1.75: negative ones are multiplied
  const float larger[200] = {};
  CHECK_EQUAL(sampler.next(larger, 200), 0);  // a growing vocabulary is no error
}

TEST("sampler: the tokens and probabilities that Hugging Face's warpers leave") {
  struct Case {
    bool tied;
    float temperature;
    int top_k;
    float top_p, min_p;
    std::map<int32_t, double> expected;
  };
  const Case cases[] = {
      {false, 1.0f, 5, 1.0f, 0.0f, {{7, 0.310022}, {14, 0.241445}, {21, 0.188038}, {28, 0.146444}, {35, 0.114051}}},
      {false,
       1.0f,
       0,
       0.9f,
       0.0f,
       {{2, 0.069042},
        {7, 0.24098},
        {9, 0.05377},
        {14, 0.187675},
        {16, 0.041876},
        {21, 0.146162},
        {23, 0.032613},
        {28, 0.113831},
        {30, 0.025399},
        {35, 0.088652}}},
      {false,
       1.0f,
       50,
       0.9f,
       0.0f,
       {{2, 0.069042},
        {7, 0.24098},
        {9, 0.05377},
        {14, 0.187675},
        {16, 0.041876},
        {21, 0.146162},
        {23, 0.032613},
        {28, 0.113831},
        {30, 0.025399},
        {35, 0.088652}}},
      {false,
       2.0f,
       7,
       0.8f,
       0.0f,
       {{2, 0.119202}, {7, 0.222698}, {14, 0.196531}, {21, 0.173438}, {28, 0.153058}, {35, 0.135073}}},
      {false,
       1.0f,
       0,
       1.0f,
       0.1f,
       {{2, 0.069042},
        {7, 0.24098},
        {9, 0.05377},
        {14, 0.187675},
        {16, 0.041876},
        {21, 0.146162},
        {23, 0.032613},
        {28, 0.113831},
        {30, 0.025399},
        {35, 0.088652}}},
      {false, 0.7f, 10, 0.95f, 0.2f, {{7, 0.360831}, {14, 0.252463}, {21, 0.176642}, {28, 0.123591}, {35, 0.086473}}},
      {true,
       1.0f,
       5,
       1.0f,
       0.0f,
       {{2, 0.094385},
        {7, 0.155615},
        {9, 0.094385},
        {14, 0.155615},
        {16, 0.094385},
        {21, 0.155615},
        {28, 0.155615},
        {35, 0.094385}}},
      {true, 1.0f, 0, 1.0f, 0.1f, {{2, 0.064998},  {4, 0.039423},  {6, 0.014503},  {7, 0.107164},  {9, 0.064998},
                                   {11, 0.023911}, {13, 0.014503}, {14, 0.107164}, {16, 0.064998}, {18, 0.023911},
                                   {20, 0.014503}, {21, 0.107164}, {23, 0.039423}, {25, 0.023911}, {28, 0.107164},
                                   {30, 0.039423}, {32, 0.023911}, {35, 0.064998}, {37, 0.039423}, {39, 0.014503}}},
  };
  for (const Case& each : cases) {
    constexpr int draws = 20000;
    const auto counts =
        histogram(sampling(each.temperature, each.top_k, each.top_p, each.min_p), logits40(each.tied), draws);
    CHECK_EQUAL(counts.size(), each.expected.size());
    for (const auto& [id, probability] : each.expected) {
      // five standard deviations of a binomial count; the seed is fixed, so this passes always or never
      const double allowed = 5 * std::sqrt(draws * probability * (1 - probability));
      CHECK_NEAR(counts.count(id) ? counts.at(id) : 0, draws * probability, allowed);
    }
  }
  // top-p among equal scores: how many stay is fixed (19), which of the equal ones is not
  CHECK_EQUAL(histogram(sampling(1.0f, 0, 0.9f, 0.0f), logits40(true), 20000).size(), size_t(19));
}

TEST("sampler: the same ids as a plain implementation draws with the same numbers") {
  Rng random(7);
  int compared = 0;
  for (int round = 0; round < 60; ++round) {
    const int vocab = 1 + int(random.next() % 700);
    SamplingOptions options =
        sampling(0.25f + float(random.uniform()) * 2, int(random.next() % 60), 1.0f, 0.0f, random.next());
    if (random.next() % 4) options.top_p = 0.05f + 0.9f * float(random.uniform());
    if (random.next() % 2) options.min_p = 0.2f * float(random.uniform());
    options.repetition_penalty = 0.8f + float(random.uniform());
    Sampler sampler(options);
    Rng draws(options.seed);
    std::vector<bool> seen(size_t(vocab), false);
    for (int step = 0; step < 20; ++step) {
      std::vector<float> logits(static_cast<size_t>(vocab));
      for (float& logit : logits) logit = float(random.uniform() * 16 - 8);
      const auto kept = reference({logits.begin(), logits.end()}, seen, options);
      const double wanted = draws.uniform();
      double below = 0;
      int32_t expected = -1;
      double distance = 1;  // of the drawn number to the next border between two ids
      for (const auto& [id, probability] : kept) {
        distance = std::min(distance, std::fabs(wanted - below));
        if (wanted >= below) expected = id;
        below += probability;
      }
      const int32_t found = sampler.next(logits.data(), vocab);
      // weights are float32 here and double there: 700 of them, each within 2^-22, move a border by less than 2e-4; a
      // cut that falls within rounding of a token would move it further, which this seed does not meet
      if (distance > 2e-4) {
        CHECK_EQUAL(found, expected);
        ++compared;
      }
      seen[size_t(found)] = true;
    }
  }
  CHECK(compared > 1000);
}

TEST("sampler: seeds decide, and defaults are the original's") {
  std::vector<float> flat(1000, 0.0f);
  const auto run = [&](uint64_t seed) {
    Sampler sampler(sampling(1.0f, 0, 1.0f, 0.0f, seed));
    std::vector<int32_t> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(sampler.next(flat.data(), 1000));
    return ids;
  };
  CHECK(run(5) == run(5));
  CHECK(run(5) != run(6));
  const SamplingOptions defaults;
  CHECK_EQUAL(defaults.top_k, 50);
  CHECK_NEAR(defaults.top_p, 0.9, 1e-7);
  CHECK_NEAR(defaults.repetition_penalty, 1.05, 1e-7);
}

TEST("sampler: extreme values stay defined") {
  const float largest = std::numeric_limits<float>::max();
  const float logits[4] = {-largest, largest, 0.0f, -1.0f};
  SamplingOptions options = sampling(1e-30f, 2, 0.5f, 1.0f);
  options.repetition_penalty = 1e30f;
  Sampler sampler(options);
  CHECK_EQUAL(sampler.next(logits, 4), 1);
  for (int i = 0; i < 5; ++i) {
    const int32_t id = sampler.next(logits, 4);
    CHECK(id >= 0 && id < 4);
  }
  Sampler one(sampling(1.0f, 50, 0.9f, 0.0f));
  CHECK_EQUAL(one.next(logits, 1), 0);
}

TEST("sampler: errors") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_ERROR(code::argument, "temperature is -1", Sampler(sampling(-1.0f, 0, 1.0f, 0.0f)));
  CHECK_ERROR(code::argument, "temperature", Sampler(sampling(nan, 0, 1.0f, 0.0f)));
  CHECK_ERROR(code::argument, "top-k", Sampler(sampling(1.0f, -1, 1.0f, 0.0f)));
  CHECK_ERROR(code::argument, "top-p", Sampler(sampling(1.0f, 0, 0.0f, 0.0f)));
  CHECK_ERROR(code::argument, "top-p", Sampler(sampling(1.0f, 0, nan, 0.0f)));
  CHECK_ERROR(code::argument, "min-p", Sampler(sampling(1.0f, 0, 1.0f, 1.5f)));
  CHECK_ERROR(code::argument, "repetition penalty is 0", Sampler(greedy(0.0f)));
  Sampler sampler(greedy());
  const float bad[3] = {0.0f, nan, nan};
  CHECK_ERROR(code::file_format, "logit 1", sampler.next(bad, 3));
  CHECK_ERROR(code::argument, "at least 1", sampler.next(bad, 0));
}
