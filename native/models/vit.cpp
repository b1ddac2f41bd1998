#include "models/vit.h"

#include <cmath>

namespace minigpt4 {

Vit::Vit(Ops& ops, const VitConfig& config, const VitWeights& weights, int max_images)
    : ops_(ops),
      c_(config),
      w_(weights),
      patches_(ops, int64_t(max_images) * config.patches() * 3 * config.patch_size * config.patch_size),
      embedded_(ops, int64_t(max_images) * config.patches() * config.width),
      x_(ops, int64_t(max_images) * config.rows() * config.width),
      h_(ops, int64_t(max_images) * config.rows() * config.width),
      qkv_(ops, int64_t(max_images) * config.rows() * config.width * 3),
      attended_(ops, int64_t(max_images) * config.rows() * config.width),
      hidden_(ops, int64_t(max_images) * config.rows() * config.mlp) {}

void Vit::forward(float* y, const float* pixels, int B, const Trace& trace) {
  const int C = c_.width, P = c_.rows(), T = B * P;
  const float eps = c_.eps;

  // x = [class token, conv(pixels)] + positions; the convolution's windows do not overlap, so it is a product
  ops_.patchify(patches_, pixels, B, c_.image_size, c_.patch_size);
  ops_.matmul(embedded_, *w_.patch.weight, patches_, w_.patch.bias.get(), B * c_.patches(), Accumulate::no);
  ops_.prepend_class(x_, embedded_, w_.class_token.get(), w_.positions.get(), B, c_.patches(), C);
  if (trace) trace("vit.embed", x_, T, C);

  Ops::Attention attention;
  attention.y = attended_;
  attention.q = qkv_;
  attention.k = qkv_ + C;
  attention.v = qkv_ + 2 * C;
  attention.q_stride = attention.k_stride = attention.v_stride = 3 * C;
  attention.B = B;
  attention.Tq = attention.Tk = P;
  attention.H = c_.heads;
  attention.D = C / c_.heads;
  attention.scale = 1 / std::sqrt(float(attention.D));

  for (int i = 0; i < c_.depth; ++i) {
    const VitBlock& b = w_.blocks[size_t(i)];
    // x = x + proj(attention(qkv(norm1(x)))); the bias of k is zero in the file
    ops_.layer_norm(h_, x_, b.norm1.weight.get(), b.norm1.bias.get(), T, C, eps);
    ops_.matmul(qkv_, *b.qkv.weight, h_, b.qkv.bias.get(), T, Accumulate::no);
    ops_.attend(attention);
    ops_.matmul(x_, *b.out.weight, attended_, b.out.bias.get(), T, Accumulate::yes);
    // x = x + fc2(gelu(fc1(norm2(x))))
    ops_.layer_norm(h_, x_, b.norm2.weight.get(), b.norm2.bias.get(), T, C, eps);
    ops_.matmul(hidden_, *b.up.weight, h_, b.up.bias.get(), T, Accumulate::no);
    ops_.gelu(hidden_, hidden_, int64_t(T) * c_.mlp);
    ops_.matmul(x_, *b.down.weight, hidden_, b.down.bias.get(), T, Accumulate::yes);
    if (trace) trace("vit.block." + std::to_string(i), x_, T, C);
  }
  ops_.layer_norm(y, x_, w_.post.weight.get(), w_.post.bias.get(), T, C, c_.post_eps);
  if (trace) trace("ln_vision", y, T, C);
}

}  // namespace minigpt4
