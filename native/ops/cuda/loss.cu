// Cross-entropy and its gradient. A block is a row of logits, read twice: for the largest value and the sum of
// exponentials at once, and for the gradient. Shared memory: a value a warp for each of the two.
#include <cfloat>

#include "ops/cuda/block_reduce.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

/// A thread's sum is of exponentials relative to the largest value that it has met, taken to the row's largest at the end;
/// the threads' sums are added in double, so that the error is that of a thread's own V / 1024 additions.
template <class Access>
__global__ void __launch_bounds__(1024)
    cross_entropy_kernel(float* loss, float* dlogits, const float* logits, const int32_t* targets, int V) {
  GPU_SHARED(float, maxima, [kMostWarps]);
  GPU_SHARED(double, sums, [kMostWarps]);
  const float* row = logits + int64_t(blockIdx.x) * V;
  const int target = targets[blockIdx.x];
  const float asked = row[target];  // before dlogits takes its place
  float most = -FLT_MAX, sum = 0;   // not infinity: its difference to a logit of -infinity must not be NaN
  for_row<Access>(V, [&](int i) {
    const auto x = Access::load(row + i);
    float next = most;
    for (int j = 0; j < Access::width; ++j) next = x.v[j] > next ? x.v[j] : next;
    if (next > most) {
      sum *= expf(most - next);
      most = next;
    }
    for (int j = 0; j < Access::width; ++j) sum += expf(x.v[j] - most);
  });
  const float largest = block_reduce<Maximum>(most, -FLT_MAX, maxima);
  const double total = block_reduce<Sum>(double(sum * expf(most - largest)), 0.0, sums);
  if (threadIdx.x == 0) loss[blockIdx.x] = float(log(total) - (double(asked) - double(largest)));
  if (dlogits == nullptr) return;
  float* to = dlogits + int64_t(blockIdx.x) * V;
  const float inverse = float(1.0 / total);
  for_row<Access>(V, [&](int i) {
    auto p = Access::load(row + i);
    for (int j = 0; j < Access::width; ++j) {
      p.v[j] = expf(p.v[j] - largest) * inverse;
      if (i + j == target) p.v[j] -= 1.0f;
    }
    Access::store(to + i, p);
  });
}

}  // namespace

void CudaOps::cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* targets, int T, int V) {
  with_row_access(V, {dlogits, logits}, [&](auto access) {
    using Access = decltype(access);
    run("cross_entropy", cross_entropy_kernel<Access>, dim3(unsigned(T)), dim3(row_threads(V / Access::width)), 0, loss,
        dlogits, logits, targets, V);
  });
}

}  // namespace minigpt4::cuda
