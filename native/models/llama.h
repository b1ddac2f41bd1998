// The language model: Llama's decoder over ragged batches and a paged cache.
#pragma once

#include <functional>
#include <vector>

#include "models/scratch.h"
#include "models/trace.h"
#include "models/weights.h"

namespace minigpt4 {

/// A run of the language model's layers: those from begin to before end.
struct LayerRange {
  int begin = 0, end = 0;
  int count() const { return end - begin; }
};

/// Keys and values of a run of layers, in pages that sequences share out among themselves (engine/kv_pages.h).
class KvCache {
 public:
  KvCache(Ops& ops, const LlamaConfig& config, Type type, int pages, LayerRange range);
  /// One layer's memory for all: enough for a pass that nothing goes on from, because a layer's keys and values are not
  /// asked for again once the next layer runs.
  static KvCache passing(Ops& ops, const LlamaConfig& config, int pages);
  /// Layer i of the model, one of the run's.
  const KvPages& layer(int i) const { return layers_[size_t(i - begin_)]; }
  const std::vector<KvPages>& layers() const { return layers_; }

 private:
  KvCache() = default;
  int begin_ = 0;
  std::vector<Buffer<char>> memory_;
  std::vector<KvPages> layers_;
};

/// A run of the layers on one backend, which has their weights; the first run has the embeddings, too, and the last one the
/// logits.
class Llama {
 public:
  /// `max_rows`: the largest T of forward(); `max_logits`: of logits().
  Llama(Ops& ops, const LlamaConfig& config, const LlamaWeights& weights, LayerRange range, int max_rows,
        int max_logits);
  /// Bytes that it allocates.
  static size_t scratch_bytes(const LlamaConfig& config, int max_rows, int max_logits);

  /// y[T, C] = embeddings of ids[T], which lie in the backend's memory and in the vocabulary.
  void embed(float* y, const int32_t* ids, int T);
  /// Asked between layers; true ends a pass early.
  using Stop = std::function<bool()>;
  /// x[T, C] through the run's layers, in place; writes the batch's keys and values into the cache. False: stopped early, and x is
  /// of no use; the same pass may be run again from the embeddings.
  /// Where `kept` is not null it becomes the input of every layer, [L, T, C]: what the way back starts from.
  bool forward(float* x, const RaggedBatch& batch, const KvCache& cache, const Trace& trace = {}, const Stop& stop = {},
               float* kept = nullptr);
  /// y[n, V] = logits of rows of x, by index: rows[n] lie in the backend's memory.
  void logits(float* y, const float* x, const int32_t* rows, int n);

  int max_rows() const { return max_rows_; }
  Ops& ops() { return ops_; }

 private:
  friend class LlamaBackward;  // goes the same way back, in the same scratch
  Ops& ops_;
  const LlamaConfig& c_;
  const LlamaWeights& w_;
  LayerRange range_;
  int max_rows_;
  Buffer<float> frequencies_;  // [rope_dims / 2]
  Buffer<float> rotation_;     // [T, rope_dims / 2, 2]
  Buffer<float> q_;            // [T, H·D]
  Buffer<float> k_, v_;        // [T, KV·D]
  Buffer<float> attended_;     // [T, H·D]
  Buffer<float> gate_, up_;    // [T, F]
  Buffer<float> last_;         // [n, C]
};

}  // namespace minigpt4
