#include "models/config.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/gguf.h"

namespace minigpt4 {
namespace {

// Far beyond any real picture, and small enough that patches and pixels are counted in an int.
constexpr uint64_t kLargestImage = 1 << 13;

/// A count from the file, 1..limit. The default limit is far beyond any real model: it keeps the product of two sizes in 48
/// bits; the weights, whose shapes are checked against the file's length, bound the rest.
int count(const GgufFile& file, const std::string& key, uint64_t value, uint64_t limit = 1u << 24) {
  if (value < 1 || value > limit) {
    fail(code::file_format, file.path(), ": ", key, " is ", value, ", expected 1 to ", limit);
  }
  return int(value);
}

int count(const GgufFile& file, const std::string& key) { return count(file, key, file.unsigned_key(key)); }

/// A number of layers: each has a tensor at least, which keeps a hostile file from asking for millions.
int layers(const GgufFile& file, const std::string& key) {
  return count(file, key, file.unsigned_key(key), std::max<uint64_t>(1, file.tensors().size()));
}

float positive(const GgufFile& file, const std::string& key, double value) {
  if (!(value > 0) || !std::isfinite(value)) {
    fail(code::file_format, file.path(), ": ", key, " is ", value, ", expected a positive number");
  }
  return float(value);
}

float positive(const GgufFile& file, const std::string& key) { return positive(file, key, file.float_key(key)); }

void divides(const GgufFile& file, const char* what, int whole, const char* by, int part) {
  if (whole % part != 0) {
    fail(code::file_format, file.path(), ": ", what, " ", whole, " is no multiple of ", by, " ", part);
  }
}

std::array<float, 3> three(const GgufFile& file, const std::string& key) {
  const std::vector<double> values = file.floats_key(key);
  if (values.size() != 3)
    fail(code::file_format, file.path(), ": ", key, " has ", values.size(), " values, expected 3");
  for (double value : values) {
    if (!std::isfinite(value))
      fail(code::file_format, file.path(), ": ", key, " holds ", value, ", expected finite numbers");
  }
  return {float(values[0]), float(values[1]), float(values[2])};
}

}  // namespace

VisionConfig read_vision_config(const GgufFile& file) {
  VisionConfig c{};
  const std::string v = "minigpt4.vit.";
  c.vit.image_size = count(file, v + "image_size", file.unsigned_key(v + "image_size"), kLargestImage);
  c.vit.patch_size = count(file, v + "patch_size");
  c.vit.width = count(file, v + "embedding_length");
  c.vit.heads = count(file, v + "head_count");
  c.vit.depth = layers(file, v + "block_count");
  c.vit.mlp = count(file, v + "feed_forward_length");
  c.vit.eps = positive(file, v + "layer_norm_epsilon");
  c.vit.post_eps = positive(file, v + "post_norm_epsilon");
  c.vit.mean = three(file, "minigpt4.image.mean");
  c.vit.std = three(file, "minigpt4.image.std");
  for (float s : c.vit.std) positive(file, "minigpt4.image.std", s);
  divides(file, "image size", c.vit.image_size, "patch size", c.vit.patch_size);
  divides(file, "ViT width", c.vit.width, "head count", c.vit.heads);

  const std::string q = "minigpt4.qformer.";
  if (file.find(q + "embedding_length")) {
    QFormerConfig f{};
    f.width = count(file, q + "embedding_length");
    f.heads = count(file, q + "head_count");
    f.depth = layers(file, q + "block_count");
    f.mlp = count(file, q + "feed_forward_length");
    f.queries = count(file, q + "query_count");
    f.cross_every = count(file, q + "cross_attention_every");
    f.eps = positive(file, q + "layer_norm_epsilon");
    divides(file, "Q-Former width", f.width, "head count", f.heads);
    c.qformer = f;
  }
  c.name = file.string_key("general.name", "");
  c.variant = file.string_key("minigpt4.variant", c.qformer ? "minigpt4-vicuna0" : "minigpt4-llama2");
  c.conversation = file.string_key("minigpt4.template", c.qformer ? "vicuna0" : "llama2");
  return c;
}

ProjectionConfig read_projection_config(const GgufFile& file) {
  ProjectionConfig c{};
  c.input = count(file, "minigpt4.projection.input_length");
  c.output = count(file, "minigpt4.projection.output_length");
  c.patches_per_token = count(file, "minigpt4.projection.patches_per_token");
  return c;
}

LlamaConfig read_llama_config(const GgufFile& file) {
  LlamaConfig c{};
  c.width = count(file, "llama.embedding_length");
  c.heads = count(file, "llama.attention.head_count");
  c.kv_heads =
      count(file, "llama.attention.head_count_kv", file.unsigned_key("llama.attention.head_count_kv", c.heads));
  c.depth = layers(file, "llama.block_count");
  c.mlp = count(file, "llama.feed_forward_length");
  c.context = count(file, "llama.context_length");
  const size_t tokens = file.strings_key("tokenizer.ggml.tokens").size();
  c.vocab = count(file, "llama.vocab_size", file.unsigned_key("llama.vocab_size", tokens));
  if (!file.find("llama.attention.key_length")) divides(file, "width", c.width, "head count", c.heads);
  c.head_dim = count(file, "llama.attention.key_length",
                     file.unsigned_key("llama.attention.key_length", uint64_t(c.width / c.heads)));
  const int value_length = count(file, "llama.attention.value_length",
                                 file.unsigned_key("llama.attention.value_length", uint64_t(c.head_dim)));
  if (value_length != c.head_dim) {
    fail(code::unsupported, file.path(), ": heads of keys are ", c.head_dim, " wide and those of values ", value_length,
         ", expected the same width");
  }
  c.rope_dims = count(file, "llama.rope.dimension_count",
                      file.unsigned_key("llama.rope.dimension_count", uint64_t(c.head_dim)), uint64_t(c.head_dim));
  divides(file, "head count", c.heads, "key-value head count", c.kv_heads);
  divides(file, "rotary dimension count", c.rope_dims, "the pair's", 2);
  c.eps = positive(file, "llama.attention.layer_norm_rms_epsilon");
  c.rope_base = positive(file, "llama.rope.freq_base", file.float_key("llama.rope.freq_base", 10000.0));
  // as llama.cpp reads them: without a type the scaling is linear, without a factor the older key counts, 0 means none
  const std::string scaling = file.string_key("llama.rope.scaling.type", "linear");
  if (scaling == "linear") {
    const double factor = file.float_key("llama.rope.scaling.factor", file.float_key("llama.rope.scale_linear", 0.0));
    c.rope_scale = factor == 0 ? 1.0f : positive(file, "llama.rope.scaling.factor", factor);
  } else if (scaling == "none") {
    c.rope_scale = 1;
  } else {
    fail(code::unsupported, file.path(), ": rotary scaling \"", scaling,
         "\" is not supported, expected none or linear");
  }
  return c;
}

}  // namespace minigpt4
