// The vision encoder: EVA-CLIP's ViT, pre-norm blocks, no norm of its own at the end (ln_vision follows it).
#pragma once

#include "models/scratch.h"
#include "models/trace.h"
#include "models/weights.h"

namespace minigpt4 {

class Vit {
 public:
  /// `max_images`: the largest B of forward().
  Vit(Ops& ops, const VitConfig& config, const VitWeights& weights, int max_images);
  /// Bytes that it allocates.
  static size_t scratch_bytes(const VitConfig& config, int max_images);
  /// y[B·P, C] = ln_vision(ViT(pixels[B, 3, S, S])), P rows an image with the class token first.
  void forward(float* y, const float* pixels, int B, const Trace& trace = {});

 private:
  Ops& ops_;
  const VitConfig& c_;
  const VitWeights& w_;
  Buffer<float> patches_;   // [B·(P-1), 3·p·p], then the embedded patches beside it
  Buffer<float> embedded_;  // [B·(P-1), C]
  Buffer<float> x_;         // [B·P, C], the residual stream
  Buffer<float> qkv_;       // [B·P, 3C]
  Buffer<float> attended_;  // [B·P, C]
  Buffer<float> hidden_;    // [B·P, F]
};

}  // namespace minigpt4
