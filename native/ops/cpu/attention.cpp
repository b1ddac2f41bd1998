// Both attentions, shared among threads by head and by tile of queries.
#include <algorithm>

#include "ops/cpu/cpu_ops.h"

namespace minigpt4::cpu {

void CpuOps::attend_paged(float* y, const float* q, const KvPages& cache, const RaggedBatch& batch, int H,
                          float scale) {
  if (batch.rows == 0) return;
  const int D = cache.head_dim, heads = H / cache.kv_heads, tile = level_.float_rows;
  const int64_t stride = int64_t(H) * D;
  int longest = 0;
  for (int t = 0; t < batch.rows; ++t) longest = std::max(longest, batch.positions[t] + 1);
  longest = int(padded(longest));

  // Query vectors of a sequence that share a key-value head are rows · heads in number, tiles of them the work:
  // sequence by sequence, head by head, so that neighbouring pieces read the same pages.
  int64_t* first_piece = nullptr;  // [sequences + 1]
  float* scratch = nullptr;
  const int64_t scratch_each = paged_scratch(longest, D);
  const auto carve = [&](Carver carver) {
    first_piece = carver.take<int64_t>(batch.sequences + 1);
    scratch = carver.take<float>(scratch_each * threads_.threads());
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  const auto tiles_of = [&](int b) {
    return ((int64_t(batch.offsets[b + 1]) - batch.offsets[b]) * heads + tile - 1) / tile;
  };
  first_piece[0] = 0;
  for (int b = 0; b < batch.sequences; ++b) first_piece[b + 1] = first_piece[b] + tiles_of(b) * cache.kv_heads;
  const int64_t pieces = first_piece[batch.sequences];

  rows_in_pieces(pieces, int64_t(longest) * D, [&](int64_t begin, int64_t end, int thread) {
    int b = int(std::upper_bound(first_piece, first_piece + batch.sequences + 1, begin) - first_piece) - 1;
    for (int64_t piece = begin; piece < end; ++piece) {
      while (piece >= first_piece[b + 1]) ++b;
      const int64_t tiles = tiles_of(b), within = piece - first_piece[b];
      const int head = int(within / tiles), row = batch.offsets[b];
      const int vectors = (batch.offsets[b + 1] - row) * heads, m = int(within % tiles) * tile;
      const int64_t first_query = row * stride + int64_t(head) * heads * D;
      const size_t head_bytes = kv_head_bytes(cache.type, D), first_byte = size_t(head) * head_bytes;
      const PagedAttention a{y + first_query,
                             q + first_query,
                             stride,
                             heads,
                             D,
                             cache.type,
                             head_bytes * size_t(cache.kv_heads),
                             static_cast<const uint8_t*>(cache.k) + first_byte,
                             static_cast<const uint8_t*>(cache.v) + first_byte,
                             batch.page_table + int64_t(b) * batch.max_pages,
                             batch.positions + row,
                             longest,
                             scale};
      level_.attend_paged(a, m, std::min(m + tile, vectors), scratch + thread * scratch_each);
    }
  });
}

void CpuOps::attend(const Attention& a) {
  const int64_t y_stride = int64_t(a.H) * a.D, scratch_each = dense_scratch(a.Tk, a.D);
  const int tile = level_.float_rows, tiles = (a.Tq + tile - 1) / tile;
  // Each piece brings its head's keys and values into order first: queries of a head are only shared where there are
  // more threads than heads.
  const int64_t heads = int64_t(a.B) * a.H, threads = threads_.threads();
  const int64_t parts = std::clamp<int64_t>(2 * threads / std::max<int64_t>(1, heads), 1, std::max(1, tiles));
  const int rows = int((tiles + parts - 1) / parts) * tile;
  float* scratch = nullptr;
  const auto carve = [&](Carver carver) {
    scratch = carver.take<float>(scratch_each * threads);
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  rows_in_pieces(heads * parts, int64_t(rows) * a.Tk * 2, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t b = piece / parts / a.H, h = piece / parts % a.H, at = h * a.D;
      const int t0 = int(piece % parts) * rows, t1 = std::min(t0 + rows, a.Tq);
      if (t0 >= t1) continue;
      const DenseAttention one{a.y + b * a.Tq * y_stride + at,
                               a.q + b * a.Tq * a.q_stride + at,
                               a.k + b * a.Tk * a.k_stride + at,
                               a.v + b * a.Tk * a.v_stride + at,
                               y_stride,
                               a.q_stride,
                               a.k_stride,
                               a.v_stride,
                               a.Tk,
                               a.D,
                               a.scale};
      level_.attend_dense(one, t0, t1, scratch + thread * scratch_each);
    }
  });
}

}  // namespace minigpt4::cpu
