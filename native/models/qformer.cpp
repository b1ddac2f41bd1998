#include "models/qformer.h"

#include <algorithm>
#include <cmath>

#include "models/linear.h"

namespace minigpt4 {

QFormer::QFormer(Ops& ops, const QFormerConfig& config, const QFormerWeights& weights, int image_rows, int max_images)
    : ops_(ops),
      c_(config),
      w_(weights),
      image_rows_(image_rows),
      q_(ops, int64_t(max_images) * config.queries * config.width),
      k_(ops, int64_t(max_images) * std::max(image_rows, config.queries) * config.width),
      v_(ops, int64_t(max_images) * std::max(image_rows, config.queries) * config.width),
      attended_(ops, int64_t(max_images) * config.queries * config.width),
      hidden_(ops, int64_t(max_images) * config.queries * config.mlp) {}

size_t QFormer::scratch_bytes(const QFormerConfig& c, int image_rows, int max_images) {
  const size_t queries = size_t(c.queries) * size_t(2 * c.width + c.mlp);
  const size_t keys = 2 * size_t(std::max(image_rows, c.queries)) * size_t(c.width);
  return size_t(max_images) * (queries + keys) * sizeof(float);
}

/// x[B·Q, C] = norm(x + out(attention(q(x), k(from), v(from)))), from[B·from_rows, …].
void QFormer::attend(float* x, const QFormerAttention& w, const float* from, int from_rows, int B) {
  const int C = c_.width, T = B * c_.queries;
  if (x == from) {
    multiply(ops_, {{q_, &w.q}, {k_, &w.k}, {v_, &w.v}}, {x}, T);
  } else {
    multiply(ops_, {{q_, &w.q}}, {x}, T);
    multiply(ops_, {{k_, &w.k}, {v_, &w.v}}, {from}, B * from_rows);
  }
  Ops::Attention a;
  a.y = attended_;
  a.q = q_;
  a.k = k_;
  a.v = v_;
  a.q_stride = a.k_stride = a.v_stride = C;
  a.B = B;
  a.Tq = c_.queries;
  a.Tk = from_rows;
  a.H = c_.heads;
  a.D = C / c_.heads;
  a.scale = 1 / std::sqrt(float(a.D));
  ops_.attend(a);
  multiply(ops_, {{x, &w.out, Accumulate::yes}}, {attended_}, T);
  ops_.layer_norm(x, x, w.norm.weight.get(), w.norm.bias.get(), T, C, c_.eps);
}

void QFormer::forward(float* y, const float* image, int B, const Trace& trace) {
  const int C = c_.width, Q = c_.queries, T = B * Q;
  float* x = y;  // the residual stream lives in the output
  for (int b = 0; b < B; ++b) ops_.copy(x + int64_t(b) * Q * C, w_.queries.get(), size_t(Q) * C * sizeof(float));
  ops_.layer_norm(x, x, w_.embedding.weight.get(), w_.embedding.bias.get(), T, C, c_.eps);
  for (int i = 0; i < c_.depth; ++i) {
    const QFormerLayer& layer = w_.layers[size_t(i)];
    attend(x, layer.self, x, Q, B);
    if (c_.has_cross(i)) attend(x, layer.cross, image, image_rows_, B);
    // x = norm(x + W2·gelu(W1·x)), the queries' own feed-forward
    multiply(ops_, {{hidden_, &layer.up}}, {x}, T);
    multiply(ops_, {{x, &layer.down, Accumulate::yes}}, gelu_of(hidden_), T);
    ops_.layer_norm(x, x, layer.norm.weight.get(), layer.norm.bias.get(), T, C, c_.eps);
    if (trace) trace(ops_, "qformer.layer." + std::to_string(i), x, T, C);
  }
}

}  // namespace minigpt4
