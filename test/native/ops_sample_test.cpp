// Draws from several rows of logits at once: each as if it were alone. What a single draw gives is sampler_test.cpp's.
#include <cmath>
#include <limits>

#include "check.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

constexpr int kWords = 16;  // of generated ids, for a vocabulary of up to 512

Ops::Draw draw_of(uint64_t seed) {
  Rng rng(seed);
  Ops::Draw draw;
  draw.temperature = seed % 4 == 0 ? 0.0f : 0.5f + float(rng.uniform());
  draw.top_k = seed % 3 == 0 ? 0 : 1 + int(rng.next() % 100);
  draw.top_p = seed % 5 == 0 ? 1.0f : 0.5f + 0.5f * float(rng.uniform());
  draw.min_p = seed % 2 == 0 ? 0.0f : 0.05f;
  draw.penalty = seed % 7 == 0 ? 1.0f : 1.3f;
  draw.uniform = rng.uniform();
  return draw;
}

struct Drawn {
  std::vector<int32_t> ids;
  std::vector<uint32_t> generated;
};

/// Rows [first, first + n) of logits[…, V], with draws of seeds first, first + 1, …; some ids generated already.
Drawn run(Ops& ops, const Floats& all, int V, int among, int first, int n) {
  const OnDevice<float> logits(ops, Floats(all.begin() + first * V, all.begin() + (first + n) * V));
  const OnDevice<uint32_t> generated(ops, size_t(n * kWords), 0x10010u);
  std::vector<Ops::Draw> draws;
  for (int i = 0; i < n; ++i) {
    draws.push_back(draw_of(uint64_t(first + i)));
    draws.back().generated = generated + i * kWords;
  }
  const OnDevice<Ops::Draw> on_device(ops, draws);
  const OnDevice<int32_t> ids(ops, size_t(n));
  ops.sample(ids, logits, on_device, n, V, among);
  same_bits("logits after sample", logits.values(), Floats(all.begin() + first * V, all.begin() + (first + n) * V));
  return {ids.values(), generated.values()};
}

}  // namespace

TEST("ops: sample draws each row as if it were alone, whatever the threads") {
  const int n = 37, V = 500, among = 490;
  const Floats logits = normal(size_t(n * V), 3, 3.0f);
  Drawn first;
  for (const int threads : {1, 3}) {
    Ops& ops = cpu(cpu_levels().back(), threads);
    const Drawn together = run(ops, logits, V, among, 0, n);
    if (first.ids.empty()) first = together;
    CHECK(together.ids == first.ids);
    CHECK(together.generated == first.generated);
    for (int i = 0; i < n; ++i) {
      const Drawn alone = run(ops, logits, V, among, i, 1);
      CHECK_EQUAL(alone.ids.front(), together.ids[size_t(i)]);
      const int32_t id = alone.ids.front();
      CHECK(id >= 0 && id < among);
      for (int word = 0; word < kWords; ++word) {  // the id's bit is set beside those that were
        const uint32_t expected = 0x10010u | (id / 32 == word ? 1u << id % 32 : 0);
        CHECK_EQUAL(alone.generated[size_t(word)], expected);
      }
    }
  }
}

TEST("ops: sample draws nothing from ids beyond those allowed") {
  Ops& ops = cpu(cpu_levels().back(), 1);
  Floats logits = normal(100, 5);
  for (size_t id = 70; id < logits.size(); ++id) logits[id] = 1000;
  CHECK(run(ops, logits, 100, 70, 0, 1).ids.front() < 70);
  logits[99] = NAN;  // is not looked at either
  CHECK(run(ops, logits, 100, 70, 0, 1).ids.front() >= 0);
}

TEST("ops: sample names the first logit that is not finite, and the other rows are drawn") {
  const int n = 5, V = 300;
  const float infinity = std::numeric_limits<float>::infinity();
  const Floats good = normal(size_t(n * V), 6, 2.0f);
  for (const float bad : {NAN, infinity, -infinity}) {
    Floats logits = good;
    logits[size_t(1 * V + 299)] = bad;
    logits[size_t(3 * V)] = logits[size_t(3 * V + 7)] = bad;
    for (const int threads : {1, 2}) {
      Ops& ops = cpu(cpu_levels().back(), threads);
      const Drawn expected = run(ops, good, V, V, 0, n), found = run(ops, logits, V, V, 0, n);
      for (const size_t i : {size_t(0), size_t(2), size_t(4)}) CHECK_EQUAL(found.ids[i], expected.ids[i]);
      CHECK_EQUAL(found.ids[1], -300);
      CHECK_EQUAL(found.ids[3], -1);
      for (size_t word = 0; word < kWords; ++word) CHECK_EQUAL(found.generated[1 * kWords + word], 0x10010u);
    }
  }
}

TEST("ops: sample reads its draws where they lie: a replay draws with what is there now") {
  Ops& ops = cpu(cpu_levels().back(), 2);
  const Floats values{0, 2, 1, -1};
  const OnDevice<float> logits(ops, values);
  const OnDevice<uint32_t> generated(ops, size_t(1));
  const OnDevice<int32_t> id(ops, size_t(1), -1);
  const OnDevice<Ops::Draw> draw(ops, size_t(1));
  const auto step = [&] { ops.replay(1, [&] { ops.sample(id, logits, draw, 1, 4, 4); }); };
  Ops::Draw how;
  how.penalty = 100;
  how.generated = generated;
  ops.upload(draw, &how, sizeof how);
  std::vector<int32_t> found;
  for (int i = 0; i < 3; ++i) {
    step();
    found.push_back(id.values().front());
  }
  CHECK(found == (std::vector<int32_t>{1, 2, 1}));  // 2, 1 and 0 remain: 0.02, 0.01, 0
  how.temperature = 1;
  how.uniform = 0.999;
  how.penalty = 1;
  ops.upload(draw, &how, sizeof how);
  step();
  CHECK_EQUAL(id.values().front(), 3);  // the ids' shares of [0, 1): 0.087, 0.644, 0.237, 0.032
}
