#include "models/qformer.h"

#include <algorithm>
#include <cmath>

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

/// x[B·Q, C] = norm(x + out(attention(q(x), k(from), v(from)))), from[B·from_rows, …].
void QFormer::attend(float* x, const QFormerAttention& w, const float* from, int from_rows, int B) {
  const int C = c_.width, T = B * c_.queries;
  ops_.matmul(q_, *w.q.weight, x, w.q.bias.get(), T, Accumulate::no);
  ops_.matmul(k_, *w.k.weight, from, w.k.bias.get(), B * from_rows, Accumulate::no);
  ops_.matmul(v_, *w.v.weight, from, w.v.bias.get(), B * from_rows, Accumulate::no);
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
  ops_.matmul(x, *w.out.weight, attended_, w.out.bias.get(), T, Accumulate::yes);
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
    ops_.matmul(hidden_, *layer.up.weight, x, layer.up.bias.get(), T, Accumulate::no);
    ops_.gelu(hidden_, hidden_, int64_t(T) * c_.mlp);
    ops_.matmul(x, *layer.down.weight, hidden_, layer.down.bias.get(), T, Accumulate::yes);
    ops_.layer_norm(x, x, layer.norm.weight.get(), layer.norm.bias.get(), T, C, c_.eps);
    if (trace) trace("qformer.layer." + std::to_string(i), x, T, C);
  }
}

}  // namespace minigpt4
