// Attention over pages of 32-bit floats, for training, where gradients are compared with differences: float32 all the way.
// A block takes 64 vectors (32 where heads are wider than 128) that share a key-value head and goes through the positions
// that they see, 32 a step: a thread computes 4x4 (2x4) scores, then 4 (2) vectors by 16 columns of the output. Sums run
// over dimensions, or positions, one after the other; a step's weights are relative to the row's largest score so far.
//
// Shared memory: queries [vectors][D], keys [D][32 positions] as in the pages, values [32][width], weights [vectors][32]:
// 74 KB at head width 128.
#include "ops/cuda/attention_pages.h"

namespace minigpt4::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kPositions = 32;                        // of a step
constexpr int kAcross = kPositions / 4;               // threads side by side, each four positions
constexpr int kDown = kThreads / kAcross;             // threads above each other, each kRows vectors
constexpr int kColumns = kWidestSlice / 4 / kAcross;  // fours of columns a thread computes

__host__ __device__ constexpr int fours_of(int D) { return (D + 3) / 4; }

template <int kRows>
size_t shared_of(int D) {
  const size_t wide = size_t(fours_of(D)) * 4, narrow = size_t(fours_of(slice_width(D))) * 4;
  return gpu::shared_bytes<float>(kDown * kRows * wide) + gpu::shared_bytes<float>(wide * kPositions) +
         gpu::shared_bytes<float>(kPositions * narrow) + gpu::shared_bytes<float>(kDown * kRows * kPositions);
}

/// A dimension's chunk of four positions; odd dimensions lie the other way round by halves, so that copies of half a row
/// each meet all banks.
__device__ inline int key_at(int d, int chunk) { return d * kPositions + (chunk ^ d % 2 * 4) * 4; }

/// Copies keys and values of [from, from + kPositions); zeros where nothing is seen and behind the last dimension.
__device__ inline void load_step(float* k, float* v, const VectorTile& tile, int from, int seen, int D) {
  const KvPages& cache = tile.a.cache;
  const int wide = fours_of(D) * 4, narrow = fours_of(tile.width);
#pragma unroll
  for (int i = 0; i < kPositions / kPagePositions; ++i) {
    const int first = from + i * kPagePositions, page = first < seen ? tile.pages()[first / kPagePositions] : 0;
    const int64_t begin = (int64_t(page) * cache.kv_heads + tile.kv_head) * D * kPagePositions;
    const float* const keys = static_cast<const float*>(cache.k) + begin;
    const float* const values = static_cast<const float*>(cache.v) + begin + tile.column;
    for (int at = int(threadIdx.x); at < 4 * wide; at += kThreads) {
      const int d = at / 4, left = d < D ? seen - first - at % 4 * 4 : 0;
      float* const to = k + key_at(d, i * 4 + at % 4);
      if (left > 0 && left < 4) {
        *reinterpret_cast<float4*>(to) = load_four(keys + at * 4, left, false);
      } else {
        gpu::cp_async16(to, left > 0 ? keys + at * 4 : keys, left > 0);
      }
    }
    for (int at = int(threadIdx.x); at < narrow * kPagePositions; at += kThreads) {
      const int row = at / narrow, four = at % narrow;
      float* const to = v + (i * kPagePositions + row) * narrow * 4 + four * 4;
      const bool there_is = first + row < seen;
      if (D % 4 == 0) {
        gpu::cp_async16(to, values + row * D + four * 4, there_is);
      } else {
        *reinterpret_cast<float4*>(to) =
            load_four(values + row * D + four * 4, there_is ? tile.width - four * 4 : 0, false);
      }
    }
  }
  gpu::cp_commit();
}

__device__ inline float4 four_at(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline float4 multiply_add(float x, const float4& y, const float4& sum) {
  return make_float4(fmaf(x, y.x, sum.x), fmaf(x, y.y, sum.y), fmaf(x, y.z, sum.z), fmaf(x, y.w, sum.w));
}

/// kRows: vectors of a thread.
template <int kRows>
__global__ void __launch_bounds__(kThreads) attend_f32_kernel(PagedAttention a) {
  gpu::wait_for_previous();
  constexpr int kVectors = kDown * kRows;
  const RaggedTile at =
      find_tile(a.batch.sequences, int(blockIdx.x), [&](int b) { return (a.vectors(b) + kVectors - 1) / kVectors; });
  if (at.sequence < 0) return;
  const VectorTile tile(a, at, kVectors);
  const int D = a.cache.head_dim, fours = fours_of(D), wide = fours * 4, narrow = fours_of(tile.width) * 4;
  const int seen = tile.seen();

  gpu::DynamicShared shared;
  float* const q = shared.take<float>(kVectors * wide);
  float* const k = shared.take<float>(wide * kPositions);
  float* const v = shared.take<float>(kPositions * fours_of(slice_width(D)) * 4);
  float* const weights = shared.take<float>(kVectors * kPositions);
  for (int item = int(threadIdx.x); item < kVectors * fours; item += kThreads) {
    const int i = item / fours, d = item % fours * 4;
    *reinterpret_cast<float4*>(q + i * wide + d) =
        i < tile.count ? load_four(a.q + tile.place(i) + d, D - d, a.whole) : make_float4(0, 0, 0, 0);
  }

  const int across = int(threadIdx.x) % kAcross, first = int(threadIdx.x) / kAcross * kRows;
  Largest largest[kRows];
  float total[kRows] = {};  // of this thread's positions
  float4 o[kRows][kColumns] = {};
#pragma unroll 1
  for (int from = 0; from < seen; from += kPositions) {
    __syncthreads();
    load_step(k, v, tile, from, seen, D);
    gpu::cp_wait<0>();
    __syncthreads();
    float4 s[kRows] = {};
    for (int d = 0; d < wide; d += 4) {
      const float4 keys[4] = {four_at(k + key_at(d, across)), four_at(k + key_at(d + 1, across)),
                              four_at(k + key_at(d + 2, across)), four_at(k + key_at(d + 3, across))};
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const float4 x = four_at(q + (first + i) * wide + d);
        s[i] = multiply_add(x.x, keys[0], s[i]);
        s[i] = multiply_add(x.y, keys[1], s[i]);
        s[i] = multiply_add(x.z, keys[2], s[i]);
        s[i] = multiply_add(x.w, keys[3], s[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int left = tile.position_of(first + i) - (from + across * 4);  // how far the row sees beyond the first
      const auto score = [&](float x, int j) { return j <= left ? x * a.factor : -INFINITY; };
      s[i] = make_float4(score(s[i].x, 0), score(s[i].y, 1), score(s[i].z, 2), score(s[i].w, 3));
      float most = fmaxf(fmaxf(s[i].x, s[i].y), fmaxf(s[i].z, s[i].w));
#pragma unroll
      for (int step = 1; step < kAcross; step *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
      const float keep = largest[i].raise(most), base = largest[i].base();
      const float4 p = make_float4(gpu::exp2_approx(s[i].x - base), gpu::exp2_approx(s[i].y - base),
                                   gpu::exp2_approx(s[i].z - base), gpu::exp2_approx(s[i].w - base));
      *reinterpret_cast<float4*>(weights + (first + i) * kPositions + across * 4) = p;
      total[i] = fmaf(total[i], keep, (p.x + p.y) + (p.z + p.w));
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        o[i][c] = make_float4(o[i][c].x * keep, o[i][c].y * keep, o[i][c].z * keep, o[i][c].w * keep);
      }
    }
    __syncwarp();  // a vector's weights are made and read by the same eight lanes
    for (int j = 0; j < kPositions; j += 4) {
      float4 p[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) p[i] = four_at(weights + (first + i) * kPositions + j);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = (c * kAcross + across) * 4;
        if (column < narrow) {
          const float* const values = v + j * narrow + column;
          const float4 rows[4] = {four_at(values), four_at(values + narrow), four_at(values + 2 * narrow),
                                  four_at(values + 3 * narrow)};
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            o[i][c] = multiply_add(p[i].x, rows[0], o[i][c]);
            o[i][c] = multiply_add(p[i].y, rows[1], o[i][c]);
            o[i][c] = multiply_add(p[i].z, rows[2], o[i][c]);
            o[i][c] = multiply_add(p[i].w, rows[3], o[i][c]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int step = 1; step < kAcross; step *= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], step);
    if (first + i >= tile.count) continue;
    float* const y = a.y + tile.place(first + i) + tile.column;
    const float by = 1.0f / total[i];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      store_four(y, (c * kAcross + across) * 4, tile.width, o[i][c], by);
    }
  }
}

}  // namespace

WidePagedLaunch attend_pages_f32(int D) {
  if (D > kWidestSlice) return {{attend_f32_kernel<2>, shared_of<2>(D)}, 2 * kDown};
  return {{attend_f32_kernel<4>, shared_of<4>(D)}, 4 * kDown};
}

}  // namespace minigpt4::cuda
