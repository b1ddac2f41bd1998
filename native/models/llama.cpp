#include "models/llama.h"

#include <cmath>

#include "core/error.h"

namespace minigpt4 {

KvCache::KvCache(Ops& ops, const LlamaConfig& c, Type type, int pages) {
  const int64_t bytes = int64_t(pages) * c.kv_heads * kPagePositions * c.head_dim * int64_t(info(type).block_bytes);
  for (int i = 0; i < c.depth; ++i) {
    memory_.emplace_back(ops, bytes, "kv cache");
    void* k = memory_.back();
    memory_.emplace_back(ops, bytes, "kv cache");
    void* v = memory_.back();
    layers_.push_back({k, v, type, pages, c.kv_heads, c.head_dim});
  }
}

KvCache KvCache::passing(Ops& ops, const LlamaConfig& c, int pages) {
  LlamaConfig one = c;
  one.depth = 1;
  KvCache cache(ops, one, Type::F32, pages);
  cache.layers_.resize(size_t(c.depth), cache.layers_.front());
  return cache;
}

Llama::Llama(Ops& ops, const LlamaConfig& config, const LlamaWeights& weights, int max_rows, int max_logits)
    : ops_(ops),
      c_(config),
      w_(weights),
      max_rows_(max_rows),
      frequencies_(ops, config.rope_dims / 2),
      rotation_(ops, int64_t(max_rows) * config.rope_dims),
      h_(ops, int64_t(max_rows) * config.width),
      q_(ops, int64_t(max_rows) * config.heads * config.head_dim),
      k_(ops, int64_t(max_rows) * config.kv_heads * config.head_dim),
      v_(ops, int64_t(max_rows) * config.kv_heads * config.head_dim),
      attended_(ops, int64_t(max_rows) * config.heads * config.head_dim),
      gate_(ops, int64_t(max_rows) * config.mlp),
      up_(ops, int64_t(max_rows) * config.mlp),
      last_(ops, int64_t(max_logits) * config.width),
      ids_(ops, max_rows),
      rows_(ops, max_logits) {
  const int half = c_.rope_dims / 2;
  std::vector<float> frequencies(size_t(half), 0.0f), factors(size_t(half), 1.0f);
  if (w_.rope_factors) ops_.download(factors.data(), w_.rope_factors.get(), factors.size() * sizeof(float));
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

void Llama::embed(float* y, const int32_t* ids, int T) {
  for (int t = 0; t < T; ++t) {
    if (ids[t] < 0 || ids[t] >= c_.vocab) {
      fail(code::argument, "token id ", ids[t], " is outside the vocabulary of ", c_.vocab, " tokens");
    }
  }
  ops_.upload(ids_, ids, size_t(T) * sizeof(int32_t));
  ops_.embed(y, *w_.embedding, ids_, T);
}

bool Llama::forward(float* x, const RaggedBatch& batch, const KvCache& cache, const Trace& trace, const Stop& stop,
                    float* kept) {
  const int T = batch.rows, C = c_.width, D = c_.head_dim, half = c_.rope_dims / 2;
  const float scale = 1 / std::sqrt(float(D));
  ops_.rope_table(rotation_, batch.positions, frequencies_, T, half);
  for (int i = 0; i < c_.depth; ++i) {
    if (stop && stop()) return false;
    if (kept) ops_.copy(kept + int64_t(i) * T * C, x, size_t(T) * size_t(C) * sizeof(float));
    const LlamaLayer& l = w_.layers[size_t(i)];
    const KvPages& pages = cache.layer(i);
    // x = x + out(attention(rope(q), rope(k), v)), all of norm(x)
    ops_.rms_norm(h_, x, l.attention_norm.weight.get(), T, C, c_.eps);
    ops_.matmul(q_, *l.q.weight, h_, l.q.bias.get(), T, Accumulate::no);
    ops_.matmul(k_, *l.k.weight, h_, l.k.bias.get(), T, Accumulate::no);
    ops_.matmul(v_, *l.v.weight, h_, l.v.bias.get(), T, Accumulate::no);
    ops_.rope(q_, rotation_, T, c_.heads, D, half);
    ops_.rope(k_, rotation_, T, c_.kv_heads, D, half);
    ops_.kv_write(pages, k_, v_, batch);
    ops_.attend_paged(attended_, q_, pages, batch, c_.heads, scale);
    ops_.matmul(x, *l.out.weight, attended_, l.out.bias.get(), T, Accumulate::yes);
    // x = x + down(silu(gate(norm(x))) · up(norm(x)))
    ops_.rms_norm(h_, x, l.mlp_norm.weight.get(), T, C, c_.eps);
    ops_.matmul(gate_, *l.gate.weight, h_, l.gate.bias.get(), T, Accumulate::no);
    ops_.matmul(up_, *l.up.weight, h_, l.up.bias.get(), T, Accumulate::no);
    ops_.silu_mul(gate_, gate_, up_, int64_t(T) * c_.mlp);
    ops_.matmul(x, *l.down.weight, gate_, l.down.bias.get(), T, Accumulate::yes);
    if (trace) trace("llama.layer." + std::to_string(i), x, T, C);
  }
  return true;
}

void Llama::logits(float* y, const float* x, const int32_t* rows, int n) {
  ops_.upload(rows_, rows, size_t(n) * sizeof(int32_t));
  ops_.gather_rows(last_, x, rows_, n, c_.width);
  ops_.rms_norm(last_, last_, w_.norm.weight.get(), n, c_.width, c_.eps);
  ops_.matmul(y, w_.output(), last_, nullptr, n, Accumulate::no);
}

}  // namespace minigpt4
