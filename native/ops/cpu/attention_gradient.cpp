// The gradient of attention, shared among threads by sequence and key-value head: what such a piece writes, no other
// does.
#include <algorithm>

#include "ops/cpu/cpu_ops.h"

namespace minigpt4::cpu {

void CpuOps::attend_dx(const AttentionGradient& a) {
  int64_t scratch_each = 0, largest = 0;
  for (int b = 0; b < a.sequences; ++b) {
    const int queries = a.q_offsets[b + 1] - a.q_offsets[b], keys = a.k_offsets[b + 1] - a.k_offsets[b];
    scratch_each = std::max(scratch_each, gradient_scratch(queries, keys, a.D));
    largest = std::max(largest, int64_t(queries) * keys);
  }
  float* scratch = nullptr;
  const auto carve = [&](Carver carver) {
    scratch = carver.take<float>(scratch_each * threads_.threads());
    return carver.size();
  };
  carve(Carver(workspace_.get(carve(Carver()))));
  const int heads = a.H / a.kv_heads;
  const int64_t q_stride = int64_t(a.H) * a.D, kv_stride = int64_t(a.kv_heads) * a.D;
  rows_in_pieces(int64_t(a.sequences) * a.kv_heads, largest * heads * a.D, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int b = int(piece / a.kv_heads), h = int(piece % a.kv_heads);
      const int queries = a.q_offsets[b + 1] - a.q_offsets[b], keys = a.k_offsets[b + 1] - a.k_offsets[b];
      if (queries == 0) continue;
      const int64_t at = a.q_offsets[b] * q_stride + int64_t(h) * heads * a.D;  // in q, dq, dy
      const int64_t from = a.k_offsets[b] * kv_stride + int64_t(h) * a.D;       // in k, v
      const int64_t to = a.q_offsets[b] * kv_stride + int64_t(h) * a.D;         // in dk, dv
      level_.attend_dx({a.dq + at, a.dk + to, a.dv + to, a.dy + at, a.q + at, a.k + from, a.v + from, q_stride,
                        kv_stride, heads, a.D, queries, keys, a.scale},
                       scratch + thread * scratch_each);
    }
  });
}

}  // namespace minigpt4::cpu
