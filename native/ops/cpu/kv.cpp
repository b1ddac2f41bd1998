// The KV cache's pages: rows are turned, rounded to the cache's type and stored head by head.
#include <cstring>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/turn.h"

namespace minigpt4::cpu {

namespace {

static_assert(kPagePositions == kGroup, "a page's keys are a group of 16 columns");

/// Stores a row's keys of one head as column `slot` of [D][16], and its values as row `slot` of [16][D].
template <class Value>
void write_position(void* k_page, void* v_page, const Value* k, const Value* v, int D, int slot) {
  Value* const column = static_cast<Value*>(k_page) + slot;
  for (int d = 0; d < D; ++d) column[d * kPagePositions] = k[d];
  std::memcpy(static_cast<Value*>(v_page) + int64_t(slot) * D, v, size_t(D) * sizeof(Value));
}

/// Stores scales [blocks of 32] as column `slot` of [blocks][16] behind a page's D · 16 codes.
void write_scales(uint8_t* page, const uint16_t* scales, int D, int slot) {
  for (int b = 0; b < (D + 31) / 32; ++b) {
    const size_t at = size_t(D) * kPagePositions + (size_t(b) * kPagePositions + size_t(slot)) * sizeof(uint16_t);
    std::memcpy(page + at, scales + b, sizeof(uint16_t));
  }
}

/// Room for a row's keys and values of one head in the cache's type: codes or halfs, then scales.
constexpr int64_t row_room(int D) { return (int64_t(D) * 2 + (D + 31) / 32 * 2 + 63) / 64 * 64; }

void write_head(const Level& level, Type type, uint8_t* k_page, uint8_t* v_page, const float* k, const float* v, int D,
                int slot, uint8_t* room) {
  if (type == Type::F32) return write_position(k_page, v_page, k, v, D, slot);
  if (type == Type::F16) {
    uint16_t *k_half = reinterpret_cast<uint16_t*>(room), *v_half = reinterpret_cast<uint16_t*>(room + row_room(D));
    level.to_half(k_half, k, D);
    level.to_half(v_half, v, D);
    return write_position(k_page, v_page, k_half, v_half, D, slot);
  }
  int8_t *k_codes = reinterpret_cast<int8_t*>(room), *v_codes = reinterpret_cast<int8_t*>(room + row_room(D));
  const size_t scales = size_t(row_room(D)) - (size_t(D) + 31) / 32 * sizeof(uint16_t);
  uint16_t *k_scales = reinterpret_cast<uint16_t*>(room + scales),
           *v_scales = reinterpret_cast<uint16_t*>(room + size_t(row_room(D)) + scales);
  level.to_q8(k_codes, k_scales, k, D);
  level.to_q8(v_codes, v_scales, v, D);
  write_position(k_page, v_page, k_codes, v_codes, D, slot);
  write_scales(k_page, k_scales, D, slot);
  write_scales(v_page, v_scales, D, slot);
}

}  // namespace

template <class Turn>
void CpuOps::write_heads(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch, Turn turn) {
  const int D = cache.head_dim, heads = cache.kv_heads;
  const size_t head_bytes = kv_head_bytes(cache.type, D);
  uint8_t* room = nullptr;  // [threads][2][row_room]
  const auto carve = [&](Carver carver) {
    room = carver.take<uint8_t>(threads_.threads() * 2 * row_room(D));
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  rows_in_pieces(heads, int64_t(batch.rows) * D * 2, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t h = begin; h < end; ++h) {
      for (int b = 0; b < batch.sequences; ++b) {
        const int32_t* pages = batch.page_table + int64_t(b) * batch.max_pages;
        for (int t = batch.offsets[b]; t < batch.offsets[b + 1]; ++t) {
          turn(t, h);
          const int position = batch.positions[t];
          const size_t at = (size_t(pages[position / kPagePositions]) * size_t(heads) + size_t(h)) * head_bytes;
          const int64_t row = (int64_t(t) * heads + h) * D;
          write_head(level_, cache.type, static_cast<uint8_t*>(cache.k) + at, static_cast<uint8_t*>(cache.v) + at,
                     k + row, v + row, D, position % kPagePositions, room + thread * 2 * row_room(D));
        }
      }
    }
  });
}

void CpuOps::kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) {
  write_heads(cache, k, v, batch, [](int, int64_t) {});
}

void CpuOps::rope_kv_write(const KvPages& cache, float* q, float* k, const float* v, const float* table, int H,
                           int half, const RaggedBatch& batch) {
  const int D = cache.head_dim, group = H / cache.kv_heads;
  write_heads(cache, k, v, batch, [=, &cache](int t, int64_t h) {
    const float* angles = table + int64_t(t) * half * 2;
    turn_heads(q + (int64_t(t) * H + h * group) * D, angles, group, D, half, 1.0f);
    turn_heads(k + (int64_t(t) * cache.kv_heads + h) * D, angles, 1, D, half, 1.0f);
  });
}

void CpuOps::kv_copy_page(const KvPages& cache, int to, int from) {
  const size_t bytes = kv_head_bytes(cache.type, cache.head_dim) * size_t(cache.kv_heads);
  for (void* memory : {cache.k, cache.v}) {
    uint8_t* pages = static_cast<uint8_t*>(memory);
    std::memcpy(pages + size_t(to) * bytes, pages + size_t(from) * bytes, bytes);
  }
}

}  // namespace minigpt4::cpu
