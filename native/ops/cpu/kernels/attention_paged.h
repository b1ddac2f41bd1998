// Causal attention over the pages of a KV cache, for a few query vectors that share a sequence and a key-value head. Every
// output is one chain over positions from 0 on, whoever shares the tile: positions that all vectors see are done together, the
// rest one vector at a time. How pages are read is the cache type's: FloatPages, Q8Pages.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

template <class Pages>
void attend_pages(const PagedAttention& a, int m0, int m1, float* scratch) {
  const Pages cache{a};
  const int rows = m1 - m0;
  const int64_t width = padded(a.D), score_width = score_stride(a.longest);
  float* scores = scratch;                        // [kRows][score_width]
  float* queries = scores + kRows * score_width;  // [kRows][D]
  float* out = queries + kRows * a.D;             // [kRows][width]
  float* weights = out + kRows * width;           // the cache's own
  const auto place = [&](int m) { return m / a.heads * a.stride + m % a.heads * a.D; };
  const auto length = [&](int m) { return a.positions[m / a.heads] + 1; };
  const F scale = set1(a.scale);
  for (int r = 0; r < rows; ++r) {
    each_vector(a.D, [&](int64_t d, int used) {
      store_part(queries + r * a.D + d, mul(load_part(a.q + place(m0 + r) + d, used), scale), used);
    });
    for (int64_t d = 0; d < width; d += kLanes) store(out + r * width + d, zero());
  }
  const int shortest = length(m0), longest = length(m1 - 1);
  cache.score(rows, queries, (longest + 15) / 16, scores, score_width);
  float inverse[kRows];
  for (int r = 0; r < rows; ++r) inverse[r] = 1.0f / softmax_row(scores + r * score_width, length(m0 + r));
  with_rows(rows, [&]<int R>() { cache.template add<R>(scores, score_width, 0, shortest, out, width, weights); });
  for (int r = 0; r < rows; ++r) {
    cache.template add<1>(scores + r * score_width, score_width, shortest, length(m0 + r), out + r * width, width,
                          weights);
    const F factor = set1(inverse[r]);
    each_vector(a.D, [&](int64_t d, int used) {
      store_part(a.y + place(m0 + r) + d, mul(load(out + r * width + d), factor), used);
    });
  }
}

void attend_paged(const PagedAttention& a, int m0, int m1, float* scratch) {
  if (a.type == Type::F32) return attend_pages<FloatPages<float>>(a, m0, m1, scratch);
  if (a.type == Type::F16) return attend_pages<FloatPages<Half>>(a, m0, m1, scratch);
  attend_pages<Q8Pages>(a, m0, m1, scratch);
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
