// Sizes of every part, read from a model file's keys and checked; nothing about the model is assumed elsewhere.
#pragma once

#include <array>
#include <optional>
#include <string>

namespace minigpt4 {

class GgufFile;

/// EVA-CLIP ViT-g/14 as BLIP-2 uses it, or a smaller one of the same form.
struct VitConfig {
  int image_size, patch_size, width, heads, depth, mlp;
  float eps;                       // the blocks' LayerNorms
  float post_eps;                  // ln_vision
  std::array<float, 3> mean, std;  // of the input pixels, RGB

  int patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  int rows() const { return patches() + 1; }  // with the class token
};

/// BERT's layers over learned queries, cross-attention in every `cross_every`-th.
struct QFormerConfig {
  int width, heads, depth, mlp, queries, cross_every;
  float eps;
  bool has_cross(int layer) const { return layer % cross_every == 0; }
};

/// The one linear layer between the vision side and the language model.
struct ProjectionConfig {
  int input, output;
  int patches_per_token;  // 1 with a Q-Former; without one, so many neighbouring patches stand side by side
};

struct LlamaConfig {
  int width, heads, kv_heads, head_dim, rope_dims, depth, mlp, vocab, context;
  float eps;
  float rope_base;
  float rope_scale;  // positions are divided by it (linear scaling); 1: none
};

/// What the vision file says of the whole.
struct VisionConfig {
  VitConfig vit;
  std::optional<QFormerConfig> qformer;
  std::string name, variant, conversation;  // general.name; minigpt4.variant, minigpt4.template

  /// Vectors of one picture that the language model sees.
  int image_tokens(const ProjectionConfig& projection) const {
    return qformer ? qformer->queries : vit.patches() / projection.patches_per_token;
  }
};

// Errors of all: ERR_FILE_FORMAT with file, key, expected and found.
VisionConfig read_vision_config(const GgufFile& file);
ProjectionConfig read_projection_config(const GgufFile& file);
LlamaConfig read_llama_config(const GgufFile& file);

}  // namespace minigpt4
