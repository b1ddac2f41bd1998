// The next token on the device: against the CPU's draws, and where those differ against the distribution in double, whose
// borders a last bit of an exponential may move.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/rng.h"
#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using Draw = Ops::Draw;
using device_case::device;
using device_case::reference;

namespace {

struct Drawn {
  std::vector<int32_t> ids;
  std::vector<uint32_t> generated;  // of all rows, one after the other
};
int words_of(int V) { return (V + 31) / 32; }

/// A draw a row; `generated` as it was before.
Drawn drawn(Ops& ops, const Floats& logits, std::vector<Draw> draws, const std::vector<uint32_t>& generated, int V,
            int among) {
  const OnDevice<float> x(ops, logits);
  const OnDevice<uint32_t> bits(ops, generated);
  const OnDevice<int32_t> ids(ops, draws.size(), 12345);
  for (size_t i = 0; i < draws.size(); ++i) draws[i].generated = bits + i * size_t(words_of(V));
  const OnDevice<Draw> on_device(ops, draws);
  ops.sample(ids, x, on_device, int(draws.size()), V, among);
  return {ids.values(), bits.values()};
}

/// The weights that are left of a row, in double; no id where two cuts are as good as each other.
struct Distribution {
  std::vector<double> weights;
  bool unsure = false;  // top-p's cut lies on a sum within rounding
};
// Two units in the last place of the exponential and its argument's rounding, where scores differ by up to 200.
constexpr double kWeightError = (4 + 2 * 200) * kRounding;

Distribution distribution(const float* logits, const Draw& draw, const uint32_t* generated, int among) {
  std::vector<float> scores(logits, logits + among);
  for (int id = 0; id < among; ++id) {
    if (draw.penalty == 1 || (generated[id / 32] >> (id % 32) & 1) == 0) continue;
    scores[size_t(id)] = scores[size_t(id)] < 0 ? scores[size_t(id)] * draw.penalty : scores[size_t(id)] / draw.penalty;
  }
  std::vector<int> order(static_cast<size_t>(among));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[size_t(a)] > scores[size_t(b)]; });
  const double best = scores[size_t(order[0])];
  size_t kept = order.size();
  if (draw.top_k > 0 && draw.top_k < among) {
    kept = size_t(draw.top_k);
    while (kept < order.size() && scores[size_t(order[kept])] == scores[size_t(order[kept - 1])]) ++kept;
  }
  Distribution found;
  found.weights.assign(size_t(among), 0.0);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    total += found.weights[size_t(order[i])] = std::exp((scores[size_t(order[i])] - best) / draw.temperature);
  }
  double mass = 0;
  for (size_t i = 0; i < kept; ++i) {
    double& weight = found.weights[size_t(order[i])];
    // equal weights add up to their sum without an error; a sum of others is as unsure as its parts
    const bool equal = weight == 1;
    if (draw.top_p < 1 && !equal && std::fabs(mass - draw.top_p * total) <= kWeightError * total) found.unsure = true;
    if (draw.top_p < 1 && mass >= draw.top_p * total) {
      weight = 0;
    } else {
      mass += weight;
      if (std::fabs(weight - draw.min_p) <= kWeightError * weight && !equal) found.unsure = true;
      if (weight < draw.min_p) weight = 0;
    }
  }
  return found;
}

/// Fails the test unless `id` is what the distribution gives at `uniform`, give or take what rounding moves a border.
void check_drawn(const Distribution& of, int id, double uniform, const std::string& what) {
  if (id < 0 || id >= int(of.weights.size()) || of.weights[size_t(id)] == 0) {
    return check::failed(__FILE__, __LINE__, what + ": id " + std::to_string(id) + " has no weight");
  }
  double before = 0, total = 0;
  for (size_t i = 0; i < of.weights.size(); ++i) {
    if (int(i) < id) before += of.weights[i];
    total += of.weights[i];
  }
  const double allowed = 2 * kWeightError * total, at = uniform * total;
  if (at < before - allowed || at > before + of.weights[size_t(id)] + allowed) {
    check::failed(__FILE__, __LINE__,
                  what + ": id " + std::to_string(id) + " has [" + std::to_string(before / total) + ", " +
                      std::to_string((before + of.weights[size_t(id)]) / total) + "), drawn at " +
                      std::to_string(uniform));
  }
}

bool has_bit(const std::vector<uint32_t>& bits, size_t row, int V, int id) {
  return bits[row * size_t(words_of(V)) + size_t(id / 32)] >> (id % 32) & 1;
}

/// Draws with every row its own options, checks ids and bits, returns how many ids differ from the CPU's.
int check_rows(const Floats& logits, const std::vector<Draw>& draws, const std::vector<uint32_t>& generated, int V,
               int among, const std::string& what) {
  const Drawn found = drawn(device(), logits, draws, generated, V, among);
  const Drawn expected = drawn(reference(), logits, draws, generated, V, among);
  int other = 0;
  for (size_t i = 0; i < draws.size(); ++i) {
    const int id = found.ids[i];
    const std::string row = what + ", row " + std::to_string(i);
    if (id != expected.ids[i]) {
      ++other;
      CHECK(draws[i].temperature != 0);
      const Distribution of =
          distribution(&logits[i * size_t(V)], draws[i], &generated[i * size_t(words_of(V))], among);
      if (!of.unsure) check_drawn(of, id, draws[i].uniform, row);
    }
    if (id < 0) continue;
    // the drawn id's bit and no other is new
    std::vector<uint32_t> bits(generated.begin() + std::ptrdiff_t(i * size_t(words_of(V))),
                               generated.begin() + std::ptrdiff_t((i + 1) * size_t(words_of(V))));
    bits[size_t(id / 32)] |= 1u << (id % 32);
    for (size_t w = 0; w < bits.size(); ++w) CHECK_EQUAL(found.generated[i * bits.size() + w], bits[w]);
  }
  return other;
}

/// All mixtures of options that a seed may choose.
Draw some_draw(Rng& rng, int V) {
  const auto one_of = [&](std::initializer_list<double> values) {
    return values.begin()[size_t(rng.uniform() * double(values.size()))];
  };
  Draw draw;
  draw.temperature = float(one_of({0, 0.3, 1, 1, 1, 2.5}));
  draw.top_k = int32_t(one_of({0, 1, 2, 50, double(V) - 1, double(V), double(V) + 7}));
  draw.top_p = float(one_of({1, 1, 0.9, 0.5, 0.999, 1e-6}));
  draw.min_p = float(one_of({0, 0, 0.05, 0.5, 1}));
  draw.penalty = float(one_of({1, 1.05, 1.5, 0.5}));
  draw.uniform = rng.uniform();
  return draw;
}

std::vector<uint32_t> some_bits(Rng& rng, int rows, int V) {
  std::vector<uint32_t> bits(size_t(rows) * size_t(words_of(V)));
  for (uint32_t& word : bits) word = uint32_t(rng.next()) & uint32_t(rng.next());
  return bits;
}

}  // namespace

TEST("cuda: sample is the CPU's draw, many options") {
  int all = 0, other = 0;
  for (const int V : {1, 5, 100, 1031, 32000}) {
    const int rows = V > 10000 ? 24 : 150;
    Rng rng(uint64_t(V) + 1);
    std::vector<Draw> draws;
    for (int i = 0; i < rows; ++i) draws.push_back(some_draw(rng, V));
    for (const float scale : {0.0f, 1.0f, 6.0f}) {  // all equal, and ties among rounded ones, come too
      Floats logits = normal(size_t(rows) * size_t(V), uint64_t(V) + 2, scale);
      if (scale == 1.0f) {
        for (float& logit : logits) logit = std::round(logit * 4) / 4;
      }
      const auto generated = some_bits(rng, rows, V);
      for (const int among : {V, (V + 2) / 3}) {
        other += check_rows(logits, draws, generated, V, among, "vocabulary of " + std::to_string(V));
        all += rows;
      }
    }
  }
  // A border lies within a rounding (1e-7 of all) of one draw in some thousand at 32,000 ids, and hardly ever elsewhere.
  CHECK(other * 100 <= all);
}

TEST("cuda: sample draws every id as often as its weight says") {
  const int V = 5, rows = 1000;
  const Floats one{1.0f, -1.0f, 0.5f, 2.0f, 2.0f};
  Floats logits;
  std::vector<Draw> draws(rows);
  for (int i = 0; i < rows; ++i) {
    logits.insert(logits.end(), one.begin(), one.end());
    draws[size_t(i)].temperature = 1;
    draws[size_t(i)].uniform = (i + 0.5) / rows;
  }
  const Drawn found = drawn(device(), logits, draws, std::vector<uint32_t>(rows), V, V);
  std::vector<int> counts(V);
  for (const int32_t id : found.ids) ++counts[size_t(id)];
  double total = 0;
  for (const float logit : one) total += std::exp(double(logit));
  // equally spaced draws meet a stretch of the line as often as its length says, one more or less
  for (int id = 0; id < V; ++id) CHECK_NEAR(counts[size_t(id)], rows * std::exp(double(one[size_t(id)])) / total, 1);
  CHECK(std::is_sorted(found.ids.begin(), found.ids.end()));
}

TEST("cuda: sample at the edges of the options") {
  const int V = 100;
  const auto one = [&](const Floats& logits, Draw draw, uint32_t bits = 0) {
    std::vector<uint32_t> generated(size_t(words_of(V)));
    generated[0] = bits;
    return drawn(device(), logits, {draw}, generated, V, V).ids[0];
  };
  const double last = 1 - 0x1p-53;
  Floats equal(V, -3.0f);
  CHECK_EQUAL(one(equal, {}), 0);  // the lowest of equal ones
  CHECK_EQUAL(one(equal, {.temperature = 1}), 0);
  CHECK_EQUAL(one(equal, {.temperature = 1, .uniform = last}), V - 1);
  CHECK_EQUAL(one(equal, {.temperature = 1, .top_k = 1, .uniform = last}), V - 1);  // what ties stays
  // Of equal ones the lower stay: 50 hold half the mass to the bit.
  CHECK_EQUAL(one(equal, {.temperature = 1, .top_p = 0.5f, .uniform = last}), 49);
  CHECK_EQUAL(one(equal, {.temperature = 1, .top_p = 0x1p-20f, .uniform = last}), 0);
  CHECK_EQUAL(one(equal, {.temperature = 1, .min_p = 1, .uniform = last}), V - 1);
  Floats zeros(V, 0.0f);
  for (int i = 0; i < V; i += 2) zeros[size_t(i)] = -0.0f;
  CHECK_EQUAL(one(zeros, {}), 0);  // both zeros are as good
  CHECK_EQUAL(one(zeros, {.temperature = 1, .top_k = 1, .uniform = last}), V - 1);
  Floats peak(V, 0.0f);
  peak[40] = 3e38f, peak[41] = -3e38f;
  CHECK_EQUAL(one(peak, {.temperature = 1e-38f, .uniform = last}), 40);
  CHECK_EQUAL(one(peak, {.temperature = 1, .uniform = 0}), 40);
  peak[3] = 3e38f;
  CHECK_EQUAL(one(peak, {.penalty = 2}, 1u << 3), 40);    // divided
  CHECK_EQUAL(one(peak, {.penalty = 0.5f}, 1u << 3), 3);  // multiplied, and held at the largest float
  // held there, it leaves the second best a weight of exp(-0.4)
  CHECK_EQUAL(one(peak, {.temperature = 1e38f, .top_k = 2, .penalty = 0.5f, .uniform = last}, 1u << 3), 40);
  CHECK_EQUAL(one(equal, {.penalty = 2}, 1u), 1);  // a negative score gets more so
}

TEST("cuda: sample names the first logit that is not finite") {
  const int V = 32000;
  for (const int at : {0, 31, 31998}) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      Floats logits = normal(size_t(2) * V, 81);
      logits[size_t(at)] = bad;
      logits[size_t(V) - 1] = NAN;
      const std::vector<uint32_t> none(size_t(2) * size_t(words_of(V)));
      const Drawn found =
          drawn(device(), logits, {Draw{.temperature = 1, .uniform = 0.3}, Draw{.temperature = 1, .uniform = 0.3}},
                none, V, V);
      CHECK_EQUAL(found.ids[0], -1 - at);
      for (int w = 0; w < words_of(V); ++w) CHECK_EQUAL(found.generated[size_t(w)], 0u);
      CHECK(found.ids[1] >= 0 && has_bit(found.generated, 1, V, found.ids[1]));
      // what stands behind those that are asked for does not count
      if (at == 31998) CHECK(drawn(device(), logits, {Draw{}}, none, V, at).ids[0] >= 0);
    }
  }
  CHECK_ERROR(code::argument, "0 logits", device().sample(nullptr, nullptr, nullptr, 1, V, 0));
}

TEST("cuda: sample gives a row the same id, whoever else is there") {
  const int V = 1031, rows = 9;
  Rng rng(5);
  const Floats logits = normal(size_t(rows) * V, 82, 3);
  std::vector<Draw> draws;
  for (int i = 0; i < rows; ++i)
    draws.push_back({.temperature = 1, .top_k = 50, .top_p = 0.9f, .uniform = rng.uniform()});
  const auto generated = some_bits(rng, rows, V);
  const Drawn together = drawn(device(), logits, draws, generated, V, V);
  for (size_t i = 0; i < size_t(rows); ++i) {
    const auto row = std::ptrdiff_t(i * V), words = std::ptrdiff_t(i) * words_of(V);
    const Drawn alone = drawn(device(), {logits.begin() + row, logits.begin() + row + V}, {draws[i]},
                              {generated.begin() + words, generated.begin() + words + words_of(V)}, V, V);
    CHECK_EQUAL(alone.ids[0], together.ids[i]);
  }
}

TEST("cuda: memory traffic of sample") {
  const int V = 32000;
  Ops& ops = device();
  const OnDevice<float> x(ops, normal(V, 83, 3));
  const OnDevice<uint32_t> bits(ops, size_t(words_of(V)), 0u);
  const OnDevice<int32_t> ids(ops, size_t(1));
  const OnDevice<Draw> draw(
      ops, std::vector<Draw>{
               {.temperature = 1, .top_k = 50, .top_p = 0.9f, .penalty = 1.05f, .uniform = 0.5, .generated = bits}});
  device_case::traffic("sample_kernel",
                       {.useful_reads = 0.55,
                        .useful_writes = 0.1,
                        .wavefronts = 4,
                        .bytes = 4.0 * V + V / 8.0 + 200,
                        .reason = "a warp's 32 ids share one word of the bits, in a sector of its own beside four of "
                                  "logits; two words are written; ids meet in the bins of a histogram"},
                       [&] { ops.sample(ids, x, draw, 1, V, V); });
}
