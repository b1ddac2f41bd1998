// The language model with a way back: forward keeping each layer's input, the loss at the answers, and the gradient with
// respect to the rows from the first picture on. The mirror of models/llama, read line against line with it.
#pragma once

#include <vector>

#include "models/llama.h"

namespace minigpt4 {

/// Ragged sequences of a pass, in host memory, and what is asked of their rows.
struct LlamaRows {
  std::vector<int32_t> offsets{0};  // [sequences + 1]
  std::vector<int32_t> first_rows;  // [sequences]: gradients are asked for from this row of the sequence on
  std::vector<int32_t> targets;     // [rows]: id that the row should predict, -1: none

  int sequences() const { return int(first_rows.size()); }
  int rows() const { return offsets.back(); }
};

class LlamaBackward {
 public:
  /// `max_rows`: of one pass. Error ERR_OUT_OF_MEMORY.
  LlamaBackward(Ops& ops, const LlamaConfig& config, const LlamaWeights& weights, int max_rows);

  int max_rows() const { return llama_.max_rows(); }
  /// Of the KV cache, of one pass.
  int max_pages() const { return cache_.layer(0).pages; }
  /// y[T, C] = embeddings of ids[T], which lie in host memory and in the vocabulary.
  void embed(float* y, const int32_t* ids, int T);

  using Stop = Llama::Stop;
  /// x[T, C] through the model, in place; losses[t] = -log p of row t's target, 0 without one. Where dx is not null it
  /// becomes the gradient of their sum with respect to the rows from first_rows[b] on of every sequence, laid end to end:
  /// [R, C]. False: stopped early.
  bool run(float* x, const LlamaRows& rows, std::vector<float>& losses, float* dx, const Stop& stop);

 private:
  /// One kind of rows laid end to end, as the backend reads them.
  struct Laid {
    Buffer<int32_t> offsets, positions;
    RaggedBatch batch;
  };

  Ops& ops_;
  const LlamaConfig& c_;
  const LlamaWeights& w_;
  Llama llama_;
  KvCache cache_;
  Buffer<float> kept_;              // [L, T, C], the layers' inputs
  Buffer<float> logits_, losses_;   // [n, V], [n]
  Buffer<float> last_, dlast_;      // [n, C]
  Buffer<int32_t> ids_;             // [T]
  Buffer<int32_t> rows_, targets_;  // [n]
  Buffer<int32_t> picked_;          // [R]: rows of the pass that gradients are asked for
  Buffer<int32_t> page_table_;      // [sequences, max_pages]
  Buffer<float> rotation_;          // [R, rope_dims / 2, 2]
  Buffer<float> x_, middle_;        // [R, C]: the layer's input, and after its attention
  Buffer<float> dh_;                // [R, C]
  Buffer<float> dattended_, dq_;    // [R, H·D]
  Buffer<float> dk_, dv_;           // [R, KV·D]
  Buffer<float> dhidden_;           // [R, F]

  Laid lay(const LlamaRows& rows, bool from_first, int max_pages);
  bool losses_of(const float* x, const std::vector<int32_t>& rows, const LlamaRows& of, std::vector<float>& losses,
                 float* dx, const std::vector<int32_t>& places, const Stop& stop);
  void layer_backward(int i, float* dx, const Laid& all, const Laid& asked);
};

}  // namespace minigpt4
