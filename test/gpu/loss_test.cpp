// Cross-entropy and its gradient on the device, against double precision.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;

namespace {

struct Loss {
  Floats losses, gradient;
};
enum class Where { apart, in_place, losses_alone };
Loss cross_entropy(const Floats& logits, const std::vector<int32_t>& targets, int V, Where where, size_t off = 0) {
  Ops& ops = device();
  Floats padded(off, 0.0f);
  padded.insert(padded.end(), logits.begin(), logits.end());
  const OnDevice<float> x(ops, padded), d(ops, padded.size()), loss(ops, targets.size());
  const OnDevice<int32_t> t(ops, targets);
  float* to = where == Where::apart ? d + off : where == Where::in_place ? x + off : nullptr;
  ops.cross_entropy(loss, to, x + off, t, int(targets.size()), V);
  const Floats all = where == Where::in_place ? x.values() : d.values();
  return {loss.values(), {all.begin() + std::ptrdiff_t(off), all.end()}};
}

}  // namespace

TEST("cuda: cross_entropy") {
  for (const int V : {1, 5, 33, 1000, 4097, 32000}) {
    for (const float scale : {1.0f, 30.0f}) {
      const std::vector<int32_t> targets{0, V - 1, V / 2, V / 3};
      const int T = int(targets.size());
      const Floats x = normal(size_t(T) * V, 71, scale);
      const Loss found = cross_entropy(x, targets, V, Where::apart);
      std::vector<double> losses, loss_allowed, gradient(x.size()), allowed(x.size());
      for (int t = 0; t < T; ++t) {
        const float* row = &x[size_t(t) * V];
        const double largest = *std::max_element(row, row + V), smallest = *std::min_element(row, row + V);
        double total = 0;
        for (int i = 0; i < V; ++i) total += std::exp(row[i] - largest);
        // A thread's own sum of at most 32 values: as many additions; an exponential within 2 units in the last place (4
        // roundings); at most 32 times a new largest value (an exponential, a product). The arguments' roundings add up
        // to the range of the row, twice; where the thread's largest is put to the row's, once more.
        const double sum_error = (32 + 4 + 32 * 5 + 5 + 3 * (largest - smallest)) * kRounding;
        losses.push_back(std::log(total) - (row[targets[t]] - largest));
        loss_allowed.push_back(sum_error + kRounding * losses.back());
        for (int i = 0; i < V; ++i) {
          const size_t at = size_t(t) * V + i;
          const double p = std::exp(row[i] - largest) / total;
          gradient[at] = p - (i == targets[t] ? 1 : 0);
          // the exponential and its argument, inverse and product; at the target one more rounding
          allowed[at] =
              p * (sum_error + (7 + largest - row[i]) * kRounding) + (i == targets[t] ? kRounding : 0) + 1e-44;
        }
      }
      near("losses", found.losses, losses, loss_allowed);
      near("gradient", found.gradient, gradient, allowed);

      const Loss in_place = cross_entropy(x, targets, V, Where::in_place);
      same_bits("losses in place", in_place.losses, found.losses);
      same_bits("gradient in place", in_place.gradient, found.gradient);
      same_bits("losses alone", cross_entropy(x, targets, V, Where::losses_alone).losses, found.losses);
      const Loss odd = cross_entropy(x, targets, V, Where::apart, 1);
      same_bits("losses at an odd address", odd.losses, found.losses);
      same_bits("gradient at an odd address", odd.gradient, found.gradient);
      const Loss last = cross_entropy({x.end() - V, x.end()}, {targets.back()}, V, Where::apart);
      same_bits("the last row's loss alone", last.losses, {found.losses.back()});
      same_bits("the last row's gradient alone", last.gradient, {found.gradient.end() - V, found.gradient.end()});
    }
  }
}

TEST("cuda: cross_entropy of extreme logits") {
  const int V = 40;
  Floats masked(V, -INFINITY), huge(V, 0.0f), broken(V, 1.0f);
  masked[3] = 1, masked[30] = 1;
  huge[7] = 3e38f, huge[8] = -3e38f;
  broken[39] = NAN;
  const Loss of_masked = cross_entropy(masked, {3}, V, Where::apart),
             of_huge = cross_entropy(huge, {7}, V, Where::apart);
  CHECK_NEAR(of_masked.losses[0], std::log(2.0), kRounding);
  CHECK_EQUAL(of_masked.gradient[30], 0.5f);
  CHECK_EQUAL(of_masked.gradient[0], 0.0f);
  CHECK_EQUAL(of_huge.losses[0], 0.0f);
  CHECK(std::isnan(cross_entropy(broken, {0}, V, Where::apart).losses[0]));
}

TEST("cuda: memory traffic of cross_entropy") {
  const int T = 2, V = 32000;
  Ops& ops = device();
  const OnDevice<float> x(ops, normal(size_t(T) * V, 72)), d(ops, size_t(T) * V), loss(ops, T);
  const OnDevice<int32_t> targets(ops, std::vector<int32_t>{5, 31999});
  device_case::traffic("cross_entropy_kernel", {.bytes = 2 * 4.0 * T * V + 4 * 32 * T},
                       [&] { ops.cross_entropy(loss, d, x, targets, T, V); });
}
