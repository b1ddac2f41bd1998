#include "models/tensor_list.h"

#include <charconv>
#include <string_view>

namespace minigpt4 {
namespace {

/// Writes the list down in the words of the models.
struct List {
  TensorVisitor& visitor;

  void floats(const std::string& name, int64_t cols, Floats& slot) {
    visitor.floats(name, {uint64_t(cols)}, slot, Presence::required);
  }
  void norm(const std::string& name, int64_t width, Norm& norm) {
    floats(name + ".weight", width, norm.weight);
    floats(name + ".bias", width, norm.bias);
  }
  void rms_norm(const std::string& name, int64_t width, Norm& norm) { floats(name + ".weight", width, norm.weight); }
  void linear(const std::string& name, int64_t rows, int64_t cols, Linear& linear, Presence bias = Presence::required) {
    visitor.matrix(name + ".weight", rows, cols, linear.weight, Presence::required);
    visitor.floats(name + ".bias", {uint64_t(rows)}, linear.bias, bias);
  }
};

}  // namespace

int llama_layer_of(const std::string& name) {
  constexpr std::string_view prefix = "blk.";
  int layer = -1;
  if (name.compare(0, prefix.size(), prefix) == 0)
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
  return layer;
}

void visit_tensors(const VitConfig& c, VitWeights& w, TensorVisitor& visitor) {
  List list{visitor};
  list.floats("v.class_embd", c.width, w.class_token);
  visitor.floats("v.position_embd.weight", {uint64_t(c.width), uint64_t(c.rows())}, w.positions, Presence::required);
  list.linear("v.patch_embd", c.width, int64_t(3) * c.patch_size * c.patch_size, w.patch);
  w.blocks.resize(size_t(c.depth));
  for (int i = 0; i < c.depth; ++i) {
    VitBlock& block = w.blocks[size_t(i)];
    const std::string b = "v.blk." + std::to_string(i) + ".";
    list.norm(b + "ln1", c.width, block.norm1);
    list.linear(b + "attn_qkv", int64_t(3) * c.width, c.width, block.qkv);
    list.linear(b + "attn_out", c.width, c.width, block.out);
    list.norm(b + "ln2", c.width, block.norm2);
    list.linear(b + "ffn_up", c.mlp, c.width, block.up);
    list.linear(b + "ffn_down", c.width, c.mlp, block.down);
  }
  list.norm("v.post_ln", c.width, w.post);
}

void visit_tensors(const QFormerConfig& c, int vit_width, QFormerWeights& w, TensorVisitor& visitor) {
  List list{visitor};
  visitor.floats("qf.query_tokens", {uint64_t(c.width), uint64_t(c.queries)}, w.queries, Presence::required);
  list.norm("qf.embd_norm", c.width, w.embedding);
  w.layers.resize(size_t(c.depth));
  for (int i = 0; i < c.depth; ++i) {
    QFormerLayer& layer = w.layers[size_t(i)];
    const std::string b = "qf.blk." + std::to_string(i) + ".";
    const auto attention = [&](const std::string& kind, int64_t keys_from, QFormerAttention& a) {
      list.linear(b + kind + "_q", c.width, c.width, a.q);
      list.linear(b + kind + "_k", c.width, keys_from, a.k);
      list.linear(b + kind + "_v", c.width, keys_from, a.v);
      list.linear(b + kind + "_out", c.width, c.width, a.out);
      list.norm(b + kind + "_norm", c.width, a.norm);
    };
    attention("attn", c.width, layer.self);
    if (c.has_cross(i)) attention("cross", vit_width, layer.cross);
    list.linear(b + "ffn_up", c.mlp, c.width, layer.up);
    list.linear(b + "ffn_down", c.width, c.mlp, layer.down);
    list.norm(b + "ffn_norm", c.width, layer.norm);
  }
}

void visit_tensors(const ProjectionConfig& c, Linear& w, TensorVisitor& visitor) {
  List{visitor}.linear("mm", c.output, c.input, w);
}

void visit_tensors(const LlamaConfig& c, LlamaWeights& w, TensorVisitor& visitor) {
  List list{visitor};
  const int64_t queries = int64_t(c.heads) * c.head_dim, keys = int64_t(c.kv_heads) * c.head_dim;
  visitor.matrix("token_embd.weight", c.vocab, c.width, w.embedding, Presence::required);
  w.layers.resize(size_t(c.depth));
  for (int i = 0; i < c.depth; ++i) {
    LlamaLayer& layer = w.layers[size_t(i)];
    const std::string b = "blk." + std::to_string(i) + ".";
    list.rms_norm(b + "attn_norm", c.width, layer.attention_norm);
    list.linear(b + "attn_q", queries, c.width, layer.q, Presence::optional);
    list.linear(b + "attn_k", keys, c.width, layer.k, Presence::optional);
    list.linear(b + "attn_v", keys, c.width, layer.v, Presence::optional);
    list.linear(b + "attn_output", c.width, queries, layer.out, Presence::optional);
    list.rms_norm(b + "ffn_norm", c.width, layer.mlp_norm);
    list.linear(b + "ffn_gate", c.mlp, c.width, layer.gate, Presence::optional);
    list.linear(b + "ffn_up", c.mlp, c.width, layer.up, Presence::optional);
    list.linear(b + "ffn_down", c.width, c.mlp, layer.down, Presence::optional);
  }
  list.rms_norm("output_norm", c.width, w.norm);
  visitor.matrix("output.weight", c.vocab, c.width, w.head, Presence::optional);
  // Llama 3.1's frequencies are divided by these, as llama.cpp does it; the files of older models have none
  visitor.numbers("rope_freqs.weight", c.rope_dims / 2, w.rope_factors, Presence::optional);
}

}  // namespace minigpt4
