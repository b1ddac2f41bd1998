// The next token, drawn on the device. A block is a row; it goes over the logits once a pass (they stay in the caches) and
// computes scores and weights anew each time, rather than keep a vocabulary in shared memory. Nothing is sorted: cuts are
// found by their bits (mass_search.h). Shared memory: 16 KB of bins and a few values a warp.
#include <cfloat>
#include <cmath>

#include "core/error.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/mass_search.h"

namespace minigpt4::cuda {
namespace {

/// Greater floats have greater keys; both zeros have the same. No finite float's key is 0.
__device__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// A weight of (0, 1] as a multiple of 2^-40. Weights above 2^-16 are whole multiples and exact; what the others lose is
/// less than V · 2^-40 of a total of at least 1 (32,000 ids: 3e-8, less than the rounding of one weight to float32), and
/// 2^23 ids can be added up. Ids below 2^-40 of the best one's probability are never drawn.
__device__ Mass mass_of(float weight) { return Mass(weight * 0x1p40f); }

/// What the steps of a draw make of the row: scores, then weights, then those that stay.
struct Distribution {
  const float* logits;
  const uint32_t* generated;
  float penalty, temperature, min_p;
  float best = 0;          // score
  uint32_t least_key = 0;  // top-k: scores with smaller keys go
  float least_weight = 0;  // top-p: smaller weights go,
  int last_tie = 0;        // and of those equal to it the ones behind this id

  __device__ float score(int id) const {
    const float x = logits[id];
    if (penalty == 1.0f || (generated[id / 32] >> (id % 32) & 1) == 0) return x;
    return fminf(fmaxf(x < 0.0f ? x * penalty : x / penalty, -FLT_MAX), FLT_MAX);
  }
  /// Relative to the best; 0 where top-k took the id out.
  __device__ float weight(int id) const {
    const float x = score(id);
    if (key_of(x) < least_key) return 0.0f;
    return x == best ? 1.0f : expf((x - best) / temperature);  // 1 whatever the division gives
  }
  __device__ Mass kept(int id) const {
    const float w = weight(id);
    const bool goes = w < least_weight || (w == least_weight && id > last_tie) || w < min_p;
    return goes ? 0 : mass_of(w);
  }
};

/// At most 8 ids a thread where the vocabulary is small.
unsigned sample_threads(int among) { return unsigned(std::clamp((among + 255) / 256 * 32, 32, 1024)); }

__device__ void keep_top_k(Distribution& of, int kept, uint32_t own_best, int among, const MassSearch& search) {
  if (kept <= 0 || kept >= among) return;
  // The best scores of so many threads are a bound that few ids reach: without it most ids would meet in few bins.
  uint32_t bound = 0;
  if (kept <= int(blockDim.x)) {
    bound = search.heaviest(Mass(kept), [&](auto add) { add(own_best, 1); }).key;
  }
  of.least_key = search
                     .heaviest(Mass(kept),
                               [&](auto add) {
                                 for (int id = int(threadIdx.x); id < among; id += int(blockDim.x)) {
                                   const uint32_t key = key_of(of.score(id));
                                   if (key >= bound) add(key, 1);
                                 }
                               })
                     .key;
}

/// The fewest ids, heaviest first, whose mass reaches top_p of the total; of ties with the last one the lower ids.
__device__ void keep_top_p(Distribution& of, float top_p, int among, const MassSearch& search, Mass* parts) {
  of.last_tie = among;
  if (!(top_p < 1.0f)) return;
  Mass total = 0;
  for (int id = int(threadIdx.x); id < among; id += int(blockDim.x)) total += mass_of(of.weight(id));
  total = block_reduce<Sum>(total, Mass(0), parts);
  const Mass wanted = max(Mass(ceil(double(top_p) * double(total))), Mass(1));
  const Cut cut = search.heaviest(wanted, [&](auto add) {
    for (int id = int(threadIdx.x); id < among; id += int(blockDim.x)) {
      const float w = of.weight(id);
      add(__float_as_uint(w), mass_of(w));
    }
  });
  of.least_weight = __uint_as_float(cut.key);
  const Mass each = mass_of(of.least_weight), ties = (wanted - cut.above + each - 1) / each;
  if (ties * each == cut.at) return;  // all of them
  of.last_tie = search
                    .passes(
                        among, [&](int id) { return Mass(of.weight(id) == of.least_weight ? 1 : 0); },
                        [&](Mass) { return ties - 1; })
                    .index;
}

__global__ void __launch_bounds__(1024)
    sample_kernel(int32_t* ids, const float* logits, const Ops::Draw* draws, int V, int among) {
  gpu::wait_for_previous();
  GPU_SHARED(int, bad_parts, [kMostWarps]);
  GPU_SHARED(Mass, best_parts, [kMostWarps]);
  GPU_SHARED(Mass, total_parts, [kMostWarps]);
  GPU_SHARED(Mass, sums, [kMostWarps]);
  GPU_SHARED(Place, place, [1]);
  GPU_SHARED(unsigned, low, [kMassBins]);
  GPU_SHARED(unsigned, high, [kMassBins]);
  const MassSearch search = {sums, place, low, high};
  const Ops::Draw& draw = draws[blockIdx.x];
  Distribution of = {logits + int64_t(blockIdx.x) * V, draw.generated, draw.penalty, draw.temperature, draw.min_p};

  int bad = among;
  Mass best = 0;  // the greatest key, below it the lowest id
  for (int id = int(threadIdx.x); id < among; id += int(blockDim.x)) {
    if (!(fabsf(of.logits[id]) <= FLT_MAX)) bad = min(bad, id);
    best = max(best, Mass(key_of(of.score(id))) << 32 | Mass(0xffffffffu - unsigned(id)));
  }
  bad = block_reduce<Minimum>(bad, among, bad_parts);
  if (bad < among) {
    if (threadIdx.x == 0) ids[blockIdx.x] = -1 - bad;
    return;
  }
  const uint32_t own_best = uint32_t(best >> 32);
  best = block_reduce<Maximum>(best, Mass(0), best_parts);
  int id = int(0xffffffffu - unsigned(best));
  if (draw.temperature != 0.0f) {
    of.best = of.score(id);
    keep_top_k(of, draw.top_k, own_best, among, search);
    keep_top_p(of, draw.top_p, among, search, total_parts);
    const double uniform = draw.uniform;
    id = search
             .passes(
                 among, [&](int at) { return of.kept(at); },
                 // rounding may reach the total itself
                 [&](Mass total) { return min(Mass(uniform * double(total)), total - 1); })
             .index;
  }
  if (threadIdx.x == 0) {
    ids[blockIdx.x] = id;
    draw.generated[id / 32] |= 1u << (id % 32);
  }
}

}  // namespace

void CudaOps::sample(int32_t* ids, const float* logits, const Draw* draws, int n, int V, int among) {
  if (among < 1) fail(code::argument, "sampling from ", among, " logits, expected at least 1");
  run_overlapping("sample", sample_kernel, dim3(unsigned(n)), dim3(sample_threads(among)), 0, ids, logits, draws, V,
                  among);
}

}  // namespace minigpt4::cuda
