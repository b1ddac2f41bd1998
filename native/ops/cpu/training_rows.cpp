// Gradients that go row by row or value by value, the loss, and the optimizer.
#include <algorithm>
#include <cmath>

#include "ops/cpu/cpu_ops.h"

namespace minigpt4::cpu {

void CpuOps::rms_norm_dx(float* dx, const float* dy, const float* x, const float* weight, int T, int C, float eps,
                         Accumulate accumulate) {
  rows_in_pieces(T, C, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      level_.rms_norm_dx(dx + t * C, dy + t * C, x + t * C, weight, C, eps, accumulate == Accumulate::yes);
    }
  });
}

void CpuOps::silu_mul_dx(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) {
  rows_in_pieces(n, 1, [&](int64_t begin, int64_t end, int) {
    level_.silu_mul_dx(dgate + begin, dup + begin, dy + begin, gate + begin, up + begin, end - begin);
  });
}

void CpuOps::cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* targets, int T, int V) {
  rows_in_pieces(T, V, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = logits + t * V;
      float* to = dlogits ? dlogits + t * V : nullptr;
      const float asked = row[targets[t]];  // before dlogits takes its place
      const SoftmaxSum of = level_.softmax(to, row, V);
      loss[t] = float(std::log(of.sum) - (double(asked) - double(of.largest)));
      if (to) to[targets[t]] -= 1.0f;
    }
  });
}

double CpuOps::squared_sum(const float* x, int64_t n) {
  constexpr int64_t stretch = 8192;
  const int64_t stretches = (n + stretch - 1) / stretch;
  double* sums = nullptr;
  const auto carve = [&](Carver carver) {
    sums = carver.take<double>(stretches);
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  rows_in_pieces(stretches, stretch, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = begin; s < end; ++s) {
      const float* from = x + s * stretch;
      const int64_t count = std::min(stretch, n - s * stretch);
      double lanes[8] = {};  // so that additions need not wait for each other
      for (int64_t i = 0; i < count; ++i) lanes[i % 8] += double(from[i]) * double(from[i]);
      sums[s] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }
  });
  double total = 0;
  for (int64_t s = 0; s < stretches; ++s) total += sums[s];
  return total;
}

void CpuOps::adamw(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, const Adamw& a) {
  const double correction1 = 1 - std::pow(a.beta1, double(a.step)), correction2 = 1 - std::pow(a.beta2, double(a.step));
  const AdamwStep step{
      float(a.gradient_scale), float(1 - a.rate * a.weight_decay), float(1 - a.beta1), float(a.beta2),
      float(1 - a.beta2),      float(std::sqrt(correction2)),      float(a.epsilon),   float(-(a.rate / correction1))};
  rows_in_pieces(n, 1, [&](int64_t begin, int64_t end, int) {
    level_.adamw(w + begin, first_moment + begin, second_moment + begin, dw + begin, end - begin, step);
  });
}

}  // namespace minigpt4::cpu
