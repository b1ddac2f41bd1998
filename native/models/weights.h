// The weights of every part as the backend holds them, and where they come from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/config.h"
#include "ops/ops.h"

namespace minigpt4 {

/// Floats in the backend's memory: a norm's weight, a bias, a table of positions. Null: the file has none.
using Floats = std::shared_ptr<float>;

struct Linear {
  std::unique_ptr<Matrix> weight;
  Floats bias;
};

struct Norm {
  Floats weight, bias;  // no bias in an RMSNorm
};

struct VitBlock {
  Norm norm1, norm2;
  Linear qkv, out, up, down;
};

struct VitWeights {
  Floats class_token;  // [C]
  Floats positions;    // [P + 1, C]
  Linear patch;        // [C, 3·p·p]
  std::vector<VitBlock> blocks;
  Norm post;  // ln_vision
};

struct QFormerAttention {
  Linear q, k, v, out;
  Norm norm;
};

struct QFormerLayer {
  QFormerAttention self, cross;  // cross: only in layers that have it
  Linear up, down;
  Norm norm;
};

struct QFormerWeights {
  Floats queries;  // [Q, C]
  Norm embedding;
  std::vector<QFormerLayer> layers;
};

struct LlamaLayer {
  Norm attention_norm, mlp_norm;
  Linear q, k, v, out, gate, up, down;
};

struct LlamaWeights {
  std::unique_ptr<Matrix> embedding;  // [V, C]
  std::vector<LlamaLayer> layers;
  Norm norm;
  std::unique_ptr<Matrix> head;     // [V, C]; null: tied to the embedding
  std::vector<float> rope_factors;  // [rope_dims / 2]; divide the rotary frequencies; empty: the file has none

  const Matrix& output() const { return head ? *head : *embedding; }
};

}  // namespace minigpt4
