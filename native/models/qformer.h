// The Q-Former: BERT's post-norm layers over learned queries that look at the picture by cross-attention.
#pragma once

#include "models/scratch.h"
#include "models/trace.h"
#include "models/weights.h"

namespace minigpt4 {

class QFormer {
 public:
  /// `image_rows`: rows of one image that cross-attention sees (P).
  QFormer(Ops& ops, const QFormerConfig& config, const QFormerWeights& weights, int image_rows, int max_images);
  /// Bytes that it allocates.
  static size_t scratch_bytes(const QFormerConfig& config, int image_rows, int max_images);
  /// y[B·Q, C] from image[B·P, vit width].
  void forward(float* y, const float* image, int B, const Trace& trace = {});

 private:
  Ops& ops_;
  const QFormerConfig& c_;
  const QFormerWeights& w_;
  int image_rows_;
  Buffer<float> q_;         // [B·Q, C]
  Buffer<float> k_, v_;     // [B·max(P, Q), C]
  Buffer<float> attended_;  // [B·Q, C]
  Buffer<float> hidden_;    // [B·Q, F]
  void attend(float* x, const QFormerAttention& w, const float* from, int from_rows, int B);
};

}  // namespace minigpt4
