// Draws from logits in the order of the original's Hugging Face generation loop. Scores are filtered without sorting
// them: the cut of top-k is a value, that of top-p is found by halving a partly sorted copy, and the draw walks the ids in
// ascending order. Time proportional to the vocabulary; rows are shared among the threads.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "ops/cpu/cpu_ops.h"

namespace minigpt4::cpu {

namespace {

constexpr float largest = std::numeric_limits<float>::max();
constexpr float dropped = -std::numeric_limits<float>::infinity();  // a score that top-k took out

/// The first of n logits that is not finite; -1: all are.
int first_not_finite(const float* logits, int n) {
  bool finite = true;  // without an early end the loop is a vector's
  for (int id = 0; id < n; ++id) finite &= std::fabs(logits[id]) <= largest;
  if (finite) return -1;
  return int(std::find_if(logits, logits + n, [](float logit) { return !std::isfinite(logit); }) - logits);
}

/// One row's draw.
class RowDraw {
 public:
  /// work[n] holds the logits and becomes scores, then weights relative to the best; best[n]: where a cut is looked for.
  RowDraw(const Ops::Draw& draw, float* work, float* best, int n) : draw_(draw), work_(work), best_(best), n_(n) {}

  int32_t next() {
    penalise();
    const int32_t id = draw_.temperature == 0.0f
                           ? int32_t(std::max_element(work_, work_ + n_) - work_)  // the first of equal ones
                           : drawn();
    draw_.generated[id / 32] |= uint32_t(1) << (id % 32);
    return id;
  }

 private:
  const Ops::Draw& draw_;
  float *work_, *best_;
  int n_;

  void penalise() {
    if (draw_.penalty == 1.0f) return;
    for (int word = 0; word * 32 < n_; ++word) {
      for (uint32_t bits = draw_.generated[word]; bits != 0; bits &= bits - 1) {
        const int id = word * 32 + std::countr_zero(bits);
        if (id >= n_) break;
        const float score = work_[id];
        work_[id] = std::clamp(score < 0.0f ? score * draw_.penalty : score / draw_.penalty, -largest, largest);
      }
    }
  }

  void keep_top_k() {
    const int kept = draw_.top_k;
    if (kept == 0 || kept >= n_) return;
    if (int64_t(kept) * 32 < n_) {  // a small heap, which few scores enter
      std::partial_sort_copy(work_, work_ + n_, best_, best_ + kept, std::greater<float>());
    } else {
      std::copy(work_, work_ + n_, best_);
      std::nth_element(best_, best_ + kept - 1, best_ + n_, std::greater<float>());
    }
    const float lowest = best_[kept - 1];  // what ties with the last one stays, as in the original
    for (int id = 0; id < n_; ++id) {
      if (work_[id] < lowest) work_[id] = dropped;
    }
  }

  void keep_top_p() {
    if (draw_.top_p >= 1.0f) return;
    double total = 0.0;
    for (int id = 0; id < n_; ++id) total += double(work_[id]);
    // Weights below this make up less than 1 - top_p even if all are: they go in any case and need no sorting.
    const double negligible = (1.0 - double(draw_.top_p)) * total / n_;
    float* const end_of_best =
        std::copy_if(work_, work_ + n_, best_, [&](float weight) { return weight >= negligible; });
    // Finds how many stay: the fewest whose mass reaches top-p. [0, begin) stay for sure, [end, …) go for sure.
    const double wanted = double(draw_.top_p) * total;
    double mass = 0.0;
    int64_t begin = 0, end = end_of_best - best_;
    while (end - begin > 1) {
      const int64_t middle = begin + (end - begin) / 2;
      std::nth_element(best_ + begin, best_ + middle, best_ + end, std::greater<float>());
      const double upper = std::accumulate(best_ + begin, best_ + middle, 0.0);
      if (mass + upper >= wanted) {
        end = middle;
      } else {
        mass += upper;
        begin = middle;
      }
    }
    const float lowest = best_[begin];
    // of those that tie with the last one the lower ids stay (the original's sort leaves open which)
    auto ties = std::count(best_, best_ + end, lowest);
    for (int id = 0; id < n_; ++id) {
      if (work_[id] < lowest || (work_[id] == lowest && ties-- <= 0)) work_[id] = 0.0f;
    }
  }

  int32_t drawn() {
    keep_top_k();
    const float best = *std::max_element(work_, work_ + n_);
    for (int id = 0; id < n_; ++id) {
      float& score = work_[id];
      if (score == dropped) {
        score = 0.0f;
      } else if (score == best) {
        score = 1.0f;  // whatever the temperature's division gives
      } else {
        score = std::exp((score - best) / draw_.temperature);
      }
    }
    keep_top_p();
    double total = 0.0;
    for (int id = 0; id < n_; ++id) {
      if (work_[id] < draw_.min_p) work_[id] = 0.0f;
      total += double(work_[id]);
    }
    double left = draw_.uniform * total;
    int32_t last = 0;
    for (int32_t id = 0; id < n_; ++id) {
      if (work_[id] == 0.0f) continue;
      last = id;
      left -= double(work_[id]);
      if (left < 0.0) break;
    }
    return last;  // rounding may leave a hair over after the last one
  }
};

}  // namespace

void CpuOps::sample(int32_t* ids, const float* logits, const Draw* draws, int n, int V, int among) {
  if (among < 1) fail(code::argument, "sampling from ", among, " logits, expected at least 1");
  float *work = nullptr, *best = nullptr;  // [threads][among]
  const auto carve = [&](Carver carver) {
    work = carver.take<float>(int64_t(threads_.threads()) * among);
    best = carver.take<float>(int64_t(threads_.threads()) * among);
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  threads_.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = logits + i * V;
      const int bad = first_not_finite(row, among);
      if (bad >= 0) {
        ids[i] = -1 - bad;
        continue;
      }
      float* const of_thread = work + int64_t(thread) * among;
      std::copy(row, row + among, of_thread);
      ids[i] = RowDraw(draws[i], of_thread, best + int64_t(thread) * among, among).next();
    }
  });
}

}  // namespace minigpt4::cpu
