// The KV cache's pages and both attentions, shared among threads by head and by tile of queries.
#include <algorithm>
#include <cstring>

#include "ops/cpu/cpu_ops.h"

namespace minigpt4::cpu {

namespace {

static_assert(kPagePositions == kGroup, "a page's keys are a group of 16 columns");

size_t value_bytes(const KvPages& cache) { return cache.type == Type::F16 ? 2 : 4; }
/// Values of one page of one key-value head.
int64_t head_values(const KvPages& cache) { return int64_t(kPagePositions) * cache.head_dim; }

/// Stores a row's keys of one head as column `slot` of [D][16], and its values as row `slot` of [16][D].
template <class Value>
void write_position(Value* k_page, Value* v_page, const Value* k, const Value* v, int D, int slot) {
  for (int d = 0; d < D; ++d) k_page[d * kPagePositions + slot] = k[d];
  std::memcpy(v_page + int64_t(slot) * D, v, size_t(D) * sizeof(Value));
}

}  // namespace

void CpuOps::rope_kv_write(const KvPages& cache, float* q, float* k, const float* v, const float* table, int H,
                           int half, const RaggedBatch& batch) {
  rope(q, table, batch.rows, H, cache.head_dim, half);
  rope(k, table, batch.rows, cache.kv_heads, cache.head_dim, half);
  kv_write(cache, k, v, batch);
}

void CpuOps::kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) {
  const int D = cache.head_dim, heads = cache.kv_heads;
  uint16_t* narrow = nullptr;  // [threads][2][D]
  const auto carve = [&](Carver carver) {
    narrow = carver.take<uint16_t>(int64_t(threads_.threads()) * 2 * D);
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  rows_in_pieces(heads, int64_t(batch.rows) * D * 2, [&](int64_t begin, int64_t end, int thread) {
    uint16_t *k_half = narrow + int64_t(thread) * 2 * D, *v_half = k_half + D;
    for (int64_t h = begin; h < end; ++h) {
      for (int b = 0; b < batch.sequences; ++b) {
        const int32_t* pages = batch.page_table + int64_t(b) * batch.max_pages;
        for (int t = batch.offsets[b]; t < batch.offsets[b + 1]; ++t) {
          const int position = batch.positions[t], slot = position % kPagePositions;
          const int64_t at = (int64_t(pages[position / kPagePositions]) * heads + h) * head_values(cache);
          const float *k_row = k + (int64_t(t) * heads + h) * D, *v_row = v + (int64_t(t) * heads + h) * D;
          if (cache.type == Type::F16) {
            level_.to_half(k_half, k_row, D);
            level_.to_half(v_half, v_row, D);
            write_position(static_cast<uint16_t*>(cache.k) + at, static_cast<uint16_t*>(cache.v) + at, k_half, v_half,
                           D, slot);
          } else {
            write_position(static_cast<float*>(cache.k) + at, static_cast<float*>(cache.v) + at, k_row, v_row, D, slot);
          }
        }
      }
    }
  });
}

void CpuOps::kv_copy_page(const KvPages& cache, int to, int from) {
  const size_t bytes = size_t(head_values(cache)) * cache.kv_heads * value_bytes(cache);
  for (void* memory : {cache.k, cache.v}) {
    std::byte* pages = static_cast<std::byte*>(memory);
    std::memcpy(pages + to * bytes, pages + from * bytes, bytes);
  }
}

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
      const int64_t first_value = head * head_values(cache);
      const size_t bytes = value_bytes(cache);
      const PagedAttention a{y + first_query,
                             q + first_query,
                             stride,
                             heads,
                             D,
                             head_values(cache) * cache.kv_heads,
                             static_cast<const std::byte*>(cache.k) + first_value * bytes,
                             static_cast<const std::byte*>(cache.v) + first_value * bytes,
                             batch.page_table + int64_t(b) * batch.max_pages,
                             batch.positions + row,
                             longest,
                             scale};
      level_.attend_paged(a, cache.type == Type::F16, m, std::min(m + tile, vectors), scratch + thread * scratch_each);
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
