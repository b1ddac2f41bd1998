// Attention over pages for sequences with few query vectors (decoding): the context is shared among blocks.
//
// A block of four warps takes up to 16 vectors that share a key-value head, and one piece of 128 positions, or several one
// after the other: every gridDim.z-th. A piece is two steps of 64. All its copies are started at once (64 KB at head width
// 128, three blocks a multiprocessor), because in decoding nothing but their latency and rate counts. In a step a warp
// computes the scores of one page, the warps exchange the largest ones, and then each computes a quarter of the output's
// columns from everybody's weights.
//
// Shared memory: queries [16][D], one (any D) or two (64, 88, 128) steps of keys [D][64] and values [64][width], weights
// [16][64], largest scores [4][16].
#include "ops/cuda/attention_pages.h"

namespace minigpt4::cuda {

namespace {

constexpr int kWarps = kStep / kPagePositions;
constexpr int kThreads = 32 * kWarps;
constexpr int kWeightStride = row_stride(kStep);

constexpr int steps_kept(int fixed_width) { return fixed_width ? kPiece / kStep : 1; }

template <int kWidth>
size_t shared_of(int D) {
  const int width = slice_width(D);
  return gpu::shared_bytes<gpu::f16>(size_t(kQueryRows * row_stride(D))) +
         gpu::shared_bytes<gpu::f16>(size_t(steps_kept(kWidth) * key_values(D))) +
         gpu::shared_bytes<gpu::f16>(size_t(steps_kept(kWidth) * value_values(width))) +
         gpu::shared_bytes<gpu::f16>(kQueryRows * kWeightStride) + gpu::shared_bytes<float>(kWarps * kQueryRows);
}

/// kWidth: the head's width, 0 for one known at run time.
template <int kWidth>
__global__ void __launch_bounds__(kThreads, 3) attend_few_kernel(PagedAttention a) {
  gpu::wait_for_previous();
  constexpr int kKept = steps_kept(kWidth);
  // pairs of 8 columns that a warp computes: warp, warp + 4, …
  constexpr int kPairs = (chunks_of(slice_width(kWidth ? kWidth : kWidestSlice)) + 2 * kWarps - 1) / (2 * kWarps);
  const int D = kWidth ? kWidth : a.cache.head_dim;
  const RaggedTile at = find_tile(a.batch.sequences, int(blockIdx.x), [&](int b) {
    const int vectors = a.vectors(b);
    return vectors <= a.few ? (vectors + kQueryRows - 1) / kQueryRows : 0;
  });
  if (at.sequence < 0) return;
  const VectorTile tile(a, at, kQueryRows);
  const int seen = tile.seen(), width = kWidth ? slice_width(kWidth) : tile.width;

  gpu::DynamicShared shared;
  gpu::f16* const q = shared.take<gpu::f16>(kQueryRows * row_stride(D));
  gpu::f16* const k = shared.take<gpu::f16>(kKept * key_values(D));
  gpu::f16* const v = shared.take<gpu::f16>(kKept * value_values(slice_width(D)));
  gpu::f16* const weights = shared.take<gpu::f16>(kQueryRows * kWeightStride);
  float* const most_of_warps = shared.take<float>(kWarps * kQueryRows);

  const LaneRows lane;
  const int warp = int(threadIdx.x / 32);
  const int last[2] = {tile.position_of(lane.row(0)), tile.position_of(lane.row(1))};
  const int columns = chunks_of(width);
  const int first_piece = int(blockIdx.z) * kPiece;
#pragma unroll 1
  for (int from = first_piece; from < seen; from += int(gridDim.z) * kPiece) {
    const int steps = seen - from > kStep ? 2 : 1;
    if (from != first_piece) __syncthreads();  // the piece before is still being read
    // a group of copies for keys, one for values, step by step
    const auto start = [&](int step) {
      const int first = from + step * kStep, kept = step % kKept;
      if (step < steps) load_keys<4>(k + kept * key_values(D), a.cache, tile.kv_head, tile.pages(), first, seen, D);
      gpu::cp_commit();
      if (step < steps) {
        load_values<4>(v + kept * value_values(slice_width(D)), a.cache, tile.kv_head, tile.pages(), first, seen, D,
                       tile.column, width);
      }
      gpu::cp_commit();
    };
#pragma unroll
    for (int step = 0; step < kKept; ++step) start(step);
    if (from == first_piece) {
      for (int step = 0; step < kKept; ++step) clear_key_rest(k + step * key_values(D), D);
      load_rows(q, kQueryRows, tile.count, D, [&](int i) { return a.q + tile.place(i); }, a.whole);
    }

    Largest largest[2];
    float total[4] = {}, o[2 * kPairs][4] = {};
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      if (step >= steps) break;
      if (kKept == 1 && step > 0) {
        __syncthreads();
        start(step);
      }
      const gpu::f16* const keys = k + step % kKept * key_values(D);
      const gpu::f16* const values = v + step % kKept * value_values(slice_width(D));
      if (kKept == 2 && step == 0) {
        gpu::cp_wait<3>();
      } else {
        gpu::cp_wait<1>();
      }
      __syncthreads();
      float s[2][4] = {}, most[2], keep[2];
      const PagedKeys key_at{keys};
      add_scores<1, true>(s, q, D, [&](int d, int key) { return key_at(d, warp * kPagePositions + key); });
      scale_and_mask(s, a.factor, from + step * kStep + warp * kPagePositions, last);
      largest_scores(s, most);
      if (lane.q == 0) {
        for (int j = 0; j < 2; ++j) most_of_warps[warp * kQueryRows + lane.row(j)] = most[j];
      }
      __syncthreads();
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        for (int w = 0; w < kWarps; ++w) most[j] = fmaxf(most[j], most_of_warps[w * kQueryRows + lane.row(j)]);
        keep[j] = largest[j].raise(most[j]);
        for (int n = 0; n < 2; ++n) {
          const int to = lane.row(j) * kWeightStride + warp * kPagePositions + n * 8 + lane.q * 2;
          *reinterpret_cast<uint32_t*>(weights + to) = weights_of(s[n][2 * j], s[n][2 * j + 1], largest[j].base());
        }
      }
      if (kKept == 2 && step == 0) {
        gpu::cp_wait<2>();
      } else {
        gpu::cp_wait<0>();
      }
      __syncthreads();
      scale_rows(total, keep);
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n) scale_rows(o[n], keep);
#pragma unroll
      for (int group = 0; group < kStep / 16; ++group) {
        uint32_t p[4];
        gpu::ldmatrix_x4(p, weights + threadIdx.x % 16 * kWeightStride + group * 16 + threadIdx.x % 32 / 16 * 8);
        add_totals(total, p);
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
          const int chunk = 2 * (warp + pair * kWarps);
          if (chunk < columns) {
            add_values(o[2 * pair], o[2 * pair + 1], p, values + group * 16 * row_stride(width), row_stride(width),
                       chunk, chunk + 1 < columns);
          }
        }
      }
    }

#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int i = lane.row(j);
      if (last[j] < from) continue;  // sees nothing of this piece, or is not there
      const bool alone = last[j] < kPiece;
      const int64_t slot = (a.slot(tile.row(i), tile.sequence) * a.H + tile.head(i)) * a.pieces + from / kPiece;
      float* const to = (alone ? a.y + tile.place(i) : a.sums + slot * D) + tile.column;
      float nothing = -INFINITY;
      const Join join(nothing, largest[j].value);
      const float by = 1.0f / join(0.0f, total[2 * j]);
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n) {
        const int at_column = 16 * (warp + n / 2 * kWarps) + n % 2 * 8 + lane.q * 2;
        const float x = o[n][2 * j], next = o[n][2 * j + 1];
        store_two(to, at_column, width, alone ? join(0.0f, x) * by : x, alone ? join(0.0f, next) * by : next);
      }
      if (!alone && tile.column == 0 && warp == 0 && lane.q == 0) {
        a.scales[slot] = make_float2(largest[j].value, total[2 * j]);
      }
    }
  }
}

/// Joins the pieces of few's vectors that have several: a warp a vector, four columns a lane.
__global__ void __launch_bounds__(128) attend_join_kernel(PagedAttention a) {
  gpu::wait_for_previous();
  const int D = a.cache.head_dim, row = int(blockIdx.x), head = int(blockIdx.y * 4 + threadIdx.x / 32);
  const RaggedTile at = find_tile(a.batch.sequences, row, [&](int b) { return rows_of(a.batch.offsets, b); });
  if (head >= a.H || at.sequence < 0 || a.vectors(at.sequence) > a.few) return;
  const int pieces = a.batch.positions[row] / kPiece + 1;
  if (pieces == 1) return;  // the piece's block has written the result
  const int64_t slot = (a.slot(row, at.sequence) * a.H + head) * a.pieces;
  const float2* const scales = a.scales + slot;
  const float* const sums = a.sums + slot * D;
  float* const y = a.y + (int64_t(row) * a.H + head) * D;
  const bool whole = D % 4 == 0;
  constexpr int kAtOnce = 8;  // pieces' results on their way together: a kernel of a few warps waits for little else
  for (int d = int(threadIdx.x % 32) * 4; d < D; d += 128) {
    float4 sum = make_float4(0, 0, 0, 0);
    float largest = -INFINITY, total = 0;
    for (int first = 0; first < pieces; first += kAtOnce) {
      float4 next[kAtOnce];
      float2 scale[kAtOnce];
      const float* const from = sums + int64_t(first) * D + d;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) scale[i] = first + i < pieces ? scales[first + i] : make_float2(0, 0);
      if (whole) {  // outside of the loop: loads without branches between them
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          next[i] = first + i < pieces ? *reinterpret_cast<const float4*>(from + i * D) : make_float4(0, 0, 0, 0);
        }
      } else {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) next[i] = load_four(from + i * D, first + i < pieces ? D - d : 0, false);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i >= pieces) break;
        const Join join(largest, scale[i].x);
        total = join(total, scale[i].y);
        sum =
            make_float4(join(sum.x, next[i].x), join(sum.y, next[i].y), join(sum.z, next[i].z), join(sum.w, next[i].w));
      }
    }
    const float by = 1.0f / total;
    store_four(y, d, D, sum, by);
  }
}

template <int kWidth>
PagedLaunch few_of(int D) {
  return {attend_few_kernel<kWidth>, shared_of<kWidth>(D)};
}

}  // namespace

PagedLaunch attend_few(int D) {
  switch (D) {
    case 64:
      return few_of<64>(D);
    case 88:
      return few_of<88>(D);
    case 128:
      return few_of<128>(D);
    default:
      return few_of<0>(D);
  }
}

PagedKernel attend_join() { return attend_join_kernel; }

}  // namespace minigpt4::cuda
