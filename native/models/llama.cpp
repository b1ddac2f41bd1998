#include "models/llama.h"

#include <cmath>

#include "core/error.h"
#include "models/linear.h"

namespace minigpt4 {

KvCache::KvCache(Ops& ops, const LlamaConfig& c, Type type, int pages, LayerRange range) : begin_(range.begin) {
  const int64_t bytes = int64_t(pages) * c.kv_heads * int64_t(kv_head_bytes(type, c.head_dim));
  for (int i = range.begin; i < range.end; ++i) {
    memory_.emplace_back(ops, bytes, "kv cache");
    void* k = memory_.back();
    memory_.emplace_back(ops, bytes, "kv cache");
    void* v = memory_.back();
    layers_.push_back({k, v, type, pages, c.kv_heads, c.head_dim});
  }
}

KvCache KvCache::passing(Ops& ops, const LlamaConfig& c, int pages) {
  KvCache cache(ops, c, Type::F32, pages, {0, 1});
  cache.layers_.resize(size_t(c.depth), cache.layers_.front());
  return cache;
}

Llama::Llama(Ops& ops, const LlamaConfig& config, const LlamaWeights& weights, LayerRange range, int max_rows,
             int max_logits)
    : ops_(ops),
      c_(config),
      w_(weights),
      range_(range),
      max_rows_(max_rows),
      frequencies_(ops, config.rope_dims / 2),
      rotation_(ops, int64_t(max_rows) * config.rope_dims),
      q_(ops, int64_t(max_rows) * config.heads * config.head_dim),
      k_(ops, int64_t(max_rows) * config.kv_heads * config.head_dim),
      v_(ops, int64_t(max_rows) * config.kv_heads * config.head_dim),
      attended_(ops, int64_t(max_rows) * config.heads * config.head_dim),
      gate_(ops, int64_t(max_rows) * config.mlp),
      up_(ops, int64_t(max_rows) * config.mlp),
      last_(ops, int64_t(max_logits) * config.width) {
  const int half = c_.rope_dims / 2;
  std::vector<float> frequencies(size_t(half), 0.0f), factors(size_t(half), 1.0f);
  if (!w_.rope_factors.empty()) factors = w_.rope_factors;
  for (int i = 0; i < half; ++i) {
    if (!(factors[size_t(i)] > 0)) {
      fail(code::file_format, "rope_freqs.weight holds ", factors[size_t(i)], " at ", i, ", expected positive numbers");
    }
    // as the reference computes it: the power in float32
    const float power = std::pow(c_.rope_base, -float(i) / float(half));
    frequencies[size_t(i)] = power / (c_.rope_scale * factors[size_t(i)]);
    if (!std::isfinite(frequencies[size_t(i)])) {
      fail(code::file_format, "rotary base ", c_.rope_base, " and scale ", c_.rope_scale, " give the frequency ",
           frequencies[size_t(i)], ", expected a finite one");
    }
  }
  ops_.upload(frequencies_, frequencies.data(), frequencies.size() * sizeof(float));
}

size_t Llama::scratch_bytes(const LlamaConfig& c, int max_rows, int max_logits) {
  const size_t row = size_t(c.rope_dims) + 2 * size_t(c.heads + c.kv_heads) * size_t(c.head_dim) + 2 * size_t(c.mlp);
  const size_t values = size_t(c.rope_dims / 2) + size_t(max_rows) * row + size_t(max_logits) * size_t(c.width);
  return values * sizeof(float);
}

void Llama::embed(float* y, const int32_t* ids, int T) { ops_.embed(y, *w_.embedding, ids, T); }

bool Llama::forward(float* x, const RaggedBatch& batch, const KvCache& cache, const Trace& trace, const Stop& stop,
                    float* kept) {
  const int T = batch.rows, C = c_.width, D = c_.head_dim, half = c_.rope_dims / 2;
  const float scale = 1 / std::sqrt(float(D));
  ops_.rope_table(rotation_, batch.positions, frequencies_, T, half);
  for (int i = range_.begin; i < range_.end; ++i) {
    if (stop && stop()) return false;
    if (kept) ops_.copy(kept + int64_t(i) * T * C, x, size_t(T) * size_t(C) * sizeof(float));
    const LlamaLayer& l = w_.layers[size_t(i)];
    const KvPages& pages = cache.layer(i);
    // x = x + out(attention(rope(q), rope(k), v)), all of norm(x)
    multiply(ops_, {{q_, &l.q}, {k_, &l.k}, {v_, &l.v}}, rms_normed(x, l.attention_norm, c_.eps), T);
    ops_.rope_kv_write(pages, q_, k_, v_, rotation_, c_.heads, half, batch);
    ops_.attend_paged(attended_, q_, pages, batch, c_.heads, scale);
    multiply(ops_, {{x, &l.out, Accumulate::yes}}, {attended_}, T);
    // x = x + down(silu(gate(norm(x))) · up(norm(x)))
    multiply(ops_, {{gate_, &l.gate}, {up_, &l.up}}, rms_normed(x, l.mlp_norm, c_.eps), T);
    multiply(ops_, {{x, &l.down, Accumulate::yes}}, silu_times(gate_, up_), T);
    if (trace) trace(ops_, "llama.layer." + std::to_string(i), x, T, C);
  }
  return true;
}

void Llama::logits(float* y, const float* x, const int32_t* rows, int n) {
  ops_.gather_rows(last_, x, rows, n, c_.width);
  const Ops::Product product{y, &w_.output()};
  ops_.products({&product, 1}, rms_normed(last_, w_.norm, c_.eps), n);
}

}  // namespace minigpt4
