// attend_dx: the gradient of causal attention over ragged sequences, all of it float32. With p = softmax(q·kᵀ·scale) and
// dp = dy·vᵀ, the scores' gradient is ds = p · (dp - Σ p·dp); dq = ds·k·scale, dk = dsᵀ·q·scale, dv = pᵀ·dy. p is computed
// again from q and k in every kernel, from the two numbers of a row: log2 of its softmax's sum (its largest score included)
// and Σ p·dp.
//
// Three launches: those two numbers, then dk and dv by tiles of keys (the group's query heads one after the other, of each the
// tiles of queries from the first that sees the keys on), then dq by tiles of queries (the tiles of keys from the first on).
// Tiles are cut from a sequence's first query and first key on, so its results are its own. Every sum has one owner; there
// are no atomics.
//
// Shared memory at head width 128: four tiles of [32][132] and two of weights [32][36], 77 KB: two blocks a multiprocessor.
#include "ops/cuda/attention_gradient.h"

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {

namespace {

constexpr int kWidestHead = 256;

/// Tile `item` of all sequences' queries, of one head.
template <int kTile>
__device__ inline RaggedTile query_tile(const Ops::AttentionGradient& a, int item) {
  return find_tile(a.sequences, item, [&](int b) { return (rows_of(a.q_offsets, b) + kTile - 1) / kTile; });
}

template <int kTile>
__global__ void __launch_bounds__(kGradientThreads, 2) gradient_statistics_kernel(AttentionGradientWork work) {
  using Tile = GradientTile<kTile>;
  const Ops::AttentionGradient& a = work.of;
  const int D = a.D, group = a.H / a.kv_heads;
  const int64_t q_stride = int64_t(a.H) * D, k_stride = int64_t(a.kv_heads) * D;
  gpu::DynamicShared shared;
  float* const q = shared.take<float>(Tile::rows_floats(D));
  float* const dy = shared.take<float>(Tile::rows_floats(D));
  float* const k = shared.take<float>(Tile::rows_floats(D));
  float* const v = shared.take<float>(Tile::rows_floats(D));
  const int across = int(threadIdx.x) % 16, first_row = int(threadIdx.x) / 16 * Tile::kRows;
  for (int item = int(blockIdx.x);; item += int(gridDim.x)) {
    const RaggedTile at = query_tile<kTile>(a, item / a.H);
    if (at.sequence < 0) return;
    const GradientPlace place(a, at.sequence);
    const int head = item % a.H, first = at.tile * kTile, count = min(kTile, place.queries - first);
    const int64_t begin = (place.first_query + first) * q_stride + int64_t(head) * D;
    const int64_t keys_begin = place.first_key * k_stride + int64_t(head / group) * D;
    load_tile<kTile>(q, a.q + begin, q_stride, count, D, work.whole);
    load_tile<kTile>(dy, a.dy + begin, q_stride, count, D, work.whole);
    Largest largest[Tile::kRows];
    float total[Tile::kRows] = {}, weighted[Tile::kRows] = {};  // Σ p and Σ p · dp of this thread's keys
    const int seen = place.before + first + count;
    for (int key = 0; key < seen; key += kTile) {
      load_tile<kTile>(k, a.k + keys_begin + key * k_stride, k_stride, min(kTile, place.keys - key), D, work.whole);
      load_tile<kTile>(v, a.v + keys_begin + key * k_stride, k_stride, min(kTile, place.keys - key), D, work.whole);
      tiles_are_there();
      float s[Tile::kRows][Tile::kKeys], dp[Tile::kRows][Tile::kKeys];
      scores_of<kTile>(s, q, k, D);
      scores_of<kTile>(dp, dy, v, D);
#pragma unroll
      for (int i = 0; i < Tile::kRows; ++i) {
        const int last = place.before + first + first_row + i;
        float most = -INFINITY;
#pragma unroll
        for (int j = 0; j < Tile::kKeys; ++j) {
          s[i][j] = key + across + 16 * j <= last ? s[i][j] * work.factor : -INFINITY;
          most = fmaxf(most, s[i][j]);
        }
        const float keep = largest[i].raise(most_of_lanes(most)), base = largest[i].base();
        total[i] = total[i] * keep;
        weighted[i] = weighted[i] * keep;
#pragma unroll
        for (int j = 0; j < Tile::kKeys; ++j) {
          const float p = gpu::exp2_approx(s[i][j] - base);
          total[i] += p;
          weighted[i] = fmaf(p, dp[i][j], weighted[i]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
      const float sum = sum_of_lanes(total[i]), product = sum_of_lanes(weighted[i]);
      if (across != 0 || first_row + i >= count) continue;
      float* const to = a.dq + begin + (first_row + i) * q_stride;
      to[0] = largest[i].base() + log2f(sum);
      to[1] = product / sum;
    }
  }
}

/// A tile's probabilities and the gradients of its scores, from scores and dp: query `first_row + i` sees the keys to
/// last + i. statistics: of row 0 of the tile, `stride` apart.
template <int kTile>
__device__ inline void probabilities(float (&s)[GradientTile<kTile>::kRows][GradientTile<kTile>::kKeys],
                                     float (&dp)[GradientTile<kTile>::kRows][GradientTile<kTile>::kKeys], float factor,
                                     const float (&sum)[GradientTile<kTile>::kRows],
                                     const float (&product)[GradientTile<kTile>::kRows], int key, int last, int count) {
#pragma unroll
  for (int i = 0; i < GradientTile<kTile>::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < GradientTile<kTile>::kKeys; ++j) {
      const bool seen = i < count && key + 16 * j <= last + i;
      s[i][j] = seen ? gpu::exp2_approx(s[i][j] * factor - sum[i]) : 0.0f;
      dp[i][j] = seen ? s[i][j] * (dp[i][j] - product[i]) : 0.0f;
    }
  }
}

/// The two numbers of this thread's rows, of which `count` are there.
template <int kRows>
__device__ inline void statistics_of(const float* from, int64_t stride, int count, float (&sum)[kRows],
                                     float (&product)[kRows]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    sum[i] = i < count ? from[i * stride] : 0.0f;
    product[i] = i < count ? from[i * stride + 1] : 0.0f;
  }
}

template <int kTile>
__global__ void __launch_bounds__(kGradientThreads, 2) gradient_keys_kernel(AttentionGradientWork work) {
  using Tile = GradientTile<kTile>;
  const Ops::AttentionGradient& a = work.of;
  const int D = a.D, group = a.H / a.kv_heads;
  const int64_t q_stride = int64_t(a.H) * D, k_stride = int64_t(a.kv_heads) * D;
  gpu::DynamicShared shared;
  float* const k = shared.take<float>(Tile::rows_floats(D));
  float* const v = shared.take<float>(Tile::rows_floats(D));
  float* const q = shared.take<float>(Tile::rows_floats(D));
  float* const dy = shared.take<float>(Tile::rows_floats(D));
  float* const weights = shared.take<float>(Tile::kWeights);  // [query][key]
  float* const gradients = shared.take<float>(Tile::kWeights);
  const int across = int(threadIdx.x) % 16, first_row = int(threadIdx.x) / 16 * Tile::kRows;
  for (int item = int(blockIdx.x);; item += int(gridDim.x)) {
    const RaggedTile at = query_tile<kTile>(a, item / a.kv_heads);  // its queries' positions are these keys'
    if (at.sequence < 0) return;
    const GradientPlace place(a, at.sequence);
    const int kv_head = item % a.kv_heads, first = at.tile * kTile, count = min(kTile, place.queries - first);
    const int64_t keys_begin = (place.first_key + place.before + first) * k_stride + int64_t(kv_head) * D;
    load_tile<kTile>(k, a.k + keys_begin, k_stride, count, D, work.whole);
    load_tile<kTile>(v, a.v + keys_begin, k_stride, count, D, work.whole);
    WeightedSums<kTile> dk, dv;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int query = first; query < place.queries; query += kTile) {
        const int64_t begin = (place.first_query + query) * q_stride + int64_t(head) * D;
        const int rows = min(kTile, place.queries - query);
        load_tile<kTile>(q, a.q + begin, q_stride, rows, D, work.whole);
        load_tile<kTile>(dy, a.dy + begin, q_stride, rows, D, work.whole);
        float sum[Tile::kRows], product[Tile::kRows];
        statistics_of(a.dq + begin + first_row * q_stride, q_stride, rows - first_row, sum, product);
        tiles_are_there();
        float s[Tile::kRows][Tile::kKeys], dp[Tile::kRows][Tile::kKeys];
        scores_of<kTile>(s, q, k, D);
        scores_of<kTile>(dp, dy, v, D);
        probabilities<kTile>(s, dp, work.factor, sum, product, first + across, query + first_row, rows - first_row);
#pragma unroll
        for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
          for (int j = 0; j < Tile::kKeys; ++j) {
            const int to = (first_row + i) * Tile::kStride + across + 16 * j;
            weights[to] = s[i][j];
            gradients[to] = dp[i][j];
          }
        }
        __syncthreads();
        dv.add(weights, dy, D);
        dk.add(gradients, q, D);
        __syncthreads();
      }
    }
    const int64_t to = (place.first_query + first) * k_stride + int64_t(kv_head) * D;
    dk.store(a.dk + to, k_stride, count, D, a.scale);
    dv.store(a.dv + to, k_stride, count, D, 1.0f);
  }
}

template <int kTile>
__global__ void __launch_bounds__(kGradientThreads, 2) gradient_queries_kernel(AttentionGradientWork work) {
  using Tile = GradientTile<kTile>;
  const Ops::AttentionGradient& a = work.of;
  const int D = a.D, group = a.H / a.kv_heads;
  const int64_t q_stride = int64_t(a.H) * D, k_stride = int64_t(a.kv_heads) * D;
  gpu::DynamicShared shared;
  float* const q = shared.take<float>(Tile::rows_floats(D));
  float* const dy = shared.take<float>(Tile::rows_floats(D));
  float* const k = shared.take<float>(Tile::rows_floats(D));
  float* const v = shared.take<float>(Tile::rows_floats(D));
  float* const gradients = shared.take<float>(Tile::kWeights);  // [key][query]
  const int across = int(threadIdx.x) % 16, first_row = int(threadIdx.x) / 16 * Tile::kRows;
  for (int item = int(blockIdx.x);; item += int(gridDim.x)) {
    const RaggedTile at = query_tile<kTile>(a, item / a.H);
    if (at.sequence < 0) return;
    const GradientPlace place(a, at.sequence);
    const int head = item % a.H, first = at.tile * kTile, count = min(kTile, place.queries - first);
    const int64_t begin = (place.first_query + first) * q_stride + int64_t(head) * D;
    const int64_t keys_begin = place.first_key * k_stride + int64_t(head / group) * D;
    load_tile<kTile>(q, a.q + begin, q_stride, count, D, work.whole);
    load_tile<kTile>(dy, a.dy + begin, q_stride, count, D, work.whole);
    float sum[Tile::kRows], product[Tile::kRows];
    statistics_of(a.dq + begin + first_row * q_stride, q_stride, count - first_row, sum, product);
    WeightedSums<kTile> dq;
    const int seen = place.before + first + count;
    for (int key = 0; key < seen; key += kTile) {
      load_tile<kTile>(k, a.k + keys_begin + key * k_stride, k_stride, min(kTile, place.keys - key), D, work.whole);
      load_tile<kTile>(v, a.v + keys_begin + key * k_stride, k_stride, min(kTile, place.keys - key), D, work.whole);
      tiles_are_there();
      float s[Tile::kRows][Tile::kKeys], dp[Tile::kRows][Tile::kKeys];
      scores_of<kTile>(s, q, k, D);
      scores_of<kTile>(dp, dy, v, D);
      probabilities<kTile>(s, dp, work.factor, sum, product, key + across, place.before + first + first_row,
                           count - first_row);
#pragma unroll
      for (int j = 0; j < Tile::kKeys; ++j) {
        float* const to = gradients + (across + 16 * j) * Tile::kStride + first_row;
        if constexpr (Tile::kRows == 4) {
          *reinterpret_cast<float4*>(to) = make_float4(dp[0][j], dp[1][j], dp[2][j], dp[3][j]);
        } else {
          *reinterpret_cast<float2*>(to) = make_float2(dp[0][j], dp[1][j]);
        }
      }
      __syncthreads();
      dq.add(gradients, k, D);
      __syncthreads();
    }
    // all of the tile's statistics have been read before the first barrier
    dq.store(a.dq + begin, q_stride, count, D, a.scale);
  }
}

template <int kTile>
GradientKernels kernels_of(int D) {
  using Tile = GradientTile<kTile>;
  const size_t rows = gpu::shared_bytes<float>(size_t(Tile::rows_floats(D)));
  const size_t weights = gpu::shared_bytes<float>(size_t(Tile::kWeights));
  return {gradient_statistics_kernel<kTile>,
          gradient_keys_kernel<kTile>,
          gradient_queries_kernel<kTile>,
          4 * rows,
          4 * rows + 2 * weights,
          4 * rows + weights};
}

}  // namespace

void CudaOps::attend_dx(const AttentionGradient& a) {
  if (a.sequences == 0) return;
  // dq holds two numbers of every head between the launches
  if (a.D < 2 || a.D > kWidestHead) {
    fail(code::unsupported, "the gradient of attention on a CUDA device is for heads 2 to ", kWidestHead,
         " wide, found ", a.D);
  }
  const AttentionGradientWork work{a, float(double(a.scale) * std::numbers::log2e),
                                   a.D % 4 == 0 && aligned16({a.q, a.k, a.v, a.dy})};
  const GradientKernels kernels = a.D <= 128 ? kernels_of<32>(a.D) : kernels_of<16>(a.D);
  const dim3 grid(unsigned(2 * multiprocessors_)), block(kGradientThreads);
  run("attend_dx", kernels.statistics, grid, block, kernels.shared_statistics, work);
  run("attend_dx", kernels.keys, grid, block, kernels.shared_keys, work);
  run("attend_dx", kernels.queries, grid, block, kernels.shared_queries, work);
}

}  // namespace minigpt4::cuda
