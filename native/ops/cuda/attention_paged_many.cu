// Attention over pages for sequences with many query vectors (prompts): 64 vectors that share a key-value head are a block,
// 16 of them a warp, which goes through the whole context that they see. A step's keys and values (32 KB at head width 128)
// serve all four warps; the next step's come in while this one is computed. Every piece of 128 positions begins with empty
// sums and is joined to those before it, as attention_paged_few.cu does it, in registers.
//
// Shared memory: queries [64][D], one (any D) or two (64, 88, 128) steps of keys [D][64] and values [64][width].
#include "ops/cuda/attention_pages.h"

namespace minigpt4::cuda {

namespace {

constexpr int kThreads = kManyVectors / kQueryRows * 32;

constexpr int steps_kept(int fixed_width) { return fixed_width ? 2 : 1; }

template <int kWidth>
size_t shared_of(int D) {
  return gpu::shared_bytes<gpu::f16>(size_t(kManyVectors * row_stride(D))) +
         gpu::shared_bytes<gpu::f16>(size_t(steps_kept(kWidth) * key_values(D))) +
         gpu::shared_bytes<gpu::f16>(size_t(steps_kept(kWidth) * value_values(slice_width(D))));
}

/// kWidth: the head's width, 0 for one known at run time.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) attend_many_kernel(PagedAttention a) {
  gpu::wait_for_previous();
  constexpr int kKept = steps_kept(kWidth), kTiles = chunks_of(slice_width(kWidth ? kWidth : kWidestSlice));
  const int D = kWidth ? kWidth : a.cache.head_dim;
  const RaggedTile at = find_tile(a.batch.sequences, int(blockIdx.x), [&](int b) {
    const int vectors = a.vectors(b);
    return vectors > a.few ? (vectors + kManyVectors - 1) / kManyVectors : 0;
  });
  if (at.sequence < 0) return;
  const VectorTile tile(a, at, kManyVectors);
  const int width = kWidth ? slice_width(kWidth) : tile.width;
  const int seen = tile.seen(), steps = (seen + kStep - 1) / kStep;

  gpu::DynamicShared shared;
  gpu::f16* const q = shared.take<gpu::f16>(kManyVectors * row_stride(D));
  gpu::f16* const k = shared.take<gpu::f16>(kKept * key_values(D));
  gpu::f16* const v = shared.take<gpu::f16>(kKept * value_values(slice_width(D)));
  const auto start = [&](int step) {
    const int kept = step % kKept, from = step * kStep;
    if (step < steps) {
      load_keys<1>(k + kept * key_values(D), a.cache, tile.kv_head, tile.pages(), from, seen, D);
      load_values<1>(v + kept * value_values(slice_width(D)), a.cache, tile.kv_head, tile.pages(), from, seen, D,
                     tile.column, width);
    }
    gpu::cp_commit();
  };
  start(0);
  for (int kept = 0; kept < kKept; ++kept) clear_key_rest(k + kept * key_values(D), D);
  load_rows(q, kManyVectors, tile.count, D, [&](int i) { return a.q + tile.place(i); }, a.whole);

  const LaneRows lane;
  const int warp_row = int(threadIdx.x / 32) * kQueryRows;
  const int last[2] = {tile.position_of(warp_row + lane.row(0)), tile.position_of(warp_row + lane.row(1))};
  const int warp_seen = warp_row < tile.count ? tile.position_of(min(warp_row + kQueryRows, tile.count) - 1) + 1 : 0;
  float all_largest[2] = {-INFINITY, -INFINITY}, all_total[2] = {}, all[kTiles][4] = {};
#pragma unroll 1
  for (int piece = 0; piece * kPiece < seen; ++piece) {
    Largest largest[2];
    float total[4] = {}, o[kTiles][4] = {};
#pragma unroll 1
    for (int step = piece * kPiece / kStep; step < min((piece + 1) * kPiece / kStep, steps); ++step) {
      if (kKept == 2) {
        start(step + 1);
        gpu::cp_wait<1>();
      } else {
        gpu::cp_wait<0>();
      }
      __syncthreads();
      const int from = step * kStep;
      if (from < warp_seen) {
        float s[kStep / 8][4] = {};
        add_scores<kStep / 16, true>(s, q + warp_row * row_stride(D), D, PagedKeys{k + step % kKept * key_values(D)});
        step_of_warp(s, a.factor, from, last, largest, total, o, chunks_of(width),
                     v + step % kKept * value_values(slice_width(D)), row_stride(width));
      }
      __syncthreads();
      if (kKept == 1) start(step + 1);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (largest[j].value == -INFINITY) continue;  // the row sees nothing of the piece
      const Join join(all_largest[j], largest[j].value);
      all_total[j] = join(all_total[j], total[2 * j]);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        all[n][2 * j] = join(all[n][2 * j], o[n][2 * j]);
        all[n][2 * j + 1] = join(all[n][2 * j + 1], o[n][2 * j + 1]);
      }
    }
  }

#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int i = warp_row + lane.row(j);
    if (i >= tile.count) continue;
    float* const y = a.y + tile.place(i) + tile.column;
    const float by = 1.0f / all_total[j];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      store_two(y, 8 * n + lane.q * 2, width, all[n][2 * j] * by, all[n][2 * j + 1] * by);
    }
  }
}

template <int kWidth>
PagedLaunch many_of(int D) {
  return {attend_many_kernel<kWidth>, shared_of<kWidth>(D)};
}

}  // namespace

PagedLaunch attend_many(int D) {
  switch (D) {
    case 64:
      return many_of<64>(D);
    case 88:
      return many_of<88>(D);
    case 128:
      return many_of<128>(D);
    default:
      return many_of<0>(D);
  }
}

}  // namespace minigpt4::cuda
