#include "models/vit.h"

#include <cmath>

#include "models/linear.h"

namespace minigpt4 {

Vit::Vit(Ops& ops, const VitConfig& config, const VitWeights& weights, int max_images)
    : ops_(ops),
      c_(config),
      w_(weights),
      patches_(ops, int64_t(max_images) * config.patches() * 3 * config.patch_size * config.patch_size),
      embedded_(ops, int64_t(max_images) * config.patches() * config.width),
      x_(ops, int64_t(max_images) * config.rows() * config.width),
      qkv_(ops, int64_t(max_images) * config.rows() * config.width * 3),
      attended_(ops, int64_t(max_images) * config.rows() * config.width),
      hidden_(ops, int64_t(max_images) * config.rows() * config.mlp) {}

size_t Vit::scratch_bytes(const VitConfig& c, int max_images) {
  const size_t patches = size_t(c.patches()) * size_t(3 * c.patch_size * c.patch_size + c.width);
  const size_t rows = size_t(c.rows()) * size_t(5 * c.width + c.mlp);
  return size_t(max_images) * (patches + rows) * sizeof(float);
}

void Vit::forward(float* y, const float* pixels, int B, const Trace& trace) {
  const int C = c_.width, P = c_.rows(), T = B * P;
  const float eps = c_.eps;

  // x = [class token, conv(pixels)] + positions; the convolution's windows do not overlap, so it is a product
  ops_.patchify(patches_, pixels, B, c_.image_size, c_.patch_size);
  multiply(ops_, {{embedded_, &w_.patch}}, {patches_}, B * c_.patches());
  ops_.prepend_class(x_, embedded_, w_.class_token.get(), w_.positions.get(), B, c_.patches(), C);
  if (trace) trace(ops_, "vit.embed", x_, T, C);

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
    multiply(ops_, {{qkv_, &b.qkv}}, layer_normed(x_, b.norm1, eps), T);
    ops_.attend(attention);
    multiply(ops_, {{x_, &b.out, Accumulate::yes}}, {attended_}, T);
    // x = x + fc2(gelu(fc1(norm2(x))))
    multiply(ops_, {{hidden_, &b.up}}, layer_normed(x_, b.norm2, eps), T);
    multiply(ops_, {{x_, &b.down, Accumulate::yes}}, gelu_of(hidden_), T);
    if (trace) trace(ops_, "vit.block." + std::to_string(i), x_, T, C);
  }
  ops_.layer_norm(y, x_, w_.post.weight.get(), w_.post.bias.get(), T, C, c_.post_eps);
  if (trace) trace(ops_, "ln_vision", y, T, C);
}

}  // namespace minigpt4
