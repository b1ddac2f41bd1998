// The language model: Llama's decoder over ragged batches and a paged cache.
#pragma once

#include <functional>
#include <vector>

#include "models/scratch.h"
#include "models/trace.h"
#include "models/weights.h"

namespace minigpt4 {

/// Keys and values of every layer, in pages that sequences share out among themselves (engine/kv_pages.h).
class KvCache {
 public:
  KvCache(Ops& ops, const LlamaConfig& config, Type type, int pages);
  /// One layer's memory for all: enough for a pass that nothing goes on from, because a layer's keys and values are not
  /// asked for again once the next layer runs.
  static KvCache passing(Ops& ops, const LlamaConfig& config, int pages);
  const KvPages& layer(int i) const { return layers_[size_t(i)]; }
  int layers() const { return int(layers_.size()); }

 private:
  KvCache() = default;
  std::vector<Buffer<char>> memory_;
  std::vector<KvPages> layers_;
};

class Llama {
 public:
  /// `max_rows`: the largest T of forward(); `max_logits`: of logits().
  Llama(Ops& ops, const LlamaConfig& config, const LlamaWeights& weights, int max_rows, int max_logits);

  /// y[T, C] = embeddings of ids (checked against the vocabulary: ERR_ARGUMENT). ids: host memory.
  void embed(float* y, const int32_t* ids, int T);
  /// Asked between layers; true ends a pass early.
  using Stop = std::function<bool()>;
  /// x[T, C] through all layers, in place; writes the batch's keys and values into the cache. False: stopped early, and x is
  /// of no use; the same pass may be run again from the embeddings.
  /// Where `kept` is not null it becomes the input of every layer, [L, T, C]: what the way back starts from.
  bool forward(float* x, const RaggedBatch& batch, const KvCache& cache, const Trace& trace = {}, const Stop& stop = {},
               float* kept = nullptr);
  /// y[n, V] = logits of rows of x, by index (host memory).
  void logits(float* y, const float* x, const int32_t* rows, int n);

  int max_rows() const { return max_rows_; }

 private:
  friend class LlamaBackward;  // goes the same way back, in the same scratch
  Ops& ops_;
  const LlamaConfig& c_;
  const LlamaWeights& w_;
  int max_rows_;
  Buffer<float> frequencies_;   // [rope_dims / 2]
  Buffer<float> rotation_;      // [T, rope_dims / 2, 2]
  Buffer<float> h_;             // [T, C]
  Buffer<float> q_;             // [T, H·D]
  Buffer<float> k_, v_;         // [T, KV·D]
  Buffer<float> attended_;      // [T, H·D]
  Buffer<float> gate_, up_;     // [T, F]
  Buffer<float> last_;          // [n, C]
  Buffer<int32_t> ids_, rows_;  // [T], [n]
};

}  // namespace minigpt4
