// Products with quantized weights on the host's side: which kernel, how many blocks.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/quantized_product.h"

namespace minigpt4::cuda {

void CudaOps::matmul_quantized(std::span<const Product> of, const PreparedRows& x) {
  if (of.empty() || x.T == 0) return;
  if (of.size() > size_t(kProductsAtOnce)) {
    fail(code::internal, "one launch was given ", of.size(), " products, expected at most ", kProductsAtOnce);
  }
  const Type type = of[0].w->type;
  const auto blocks_of = [&](int outputs) {
    int64_t blocks = 0;
    for (const Product& p : of) blocks += (p.w->rows + outputs - 1) / outputs;
    return blocks;
  };
  QuantizedLaunch how = quantized_decode(type, x.T);
  int64_t token_blocks = 1;
  if (x.T > kDecodeTokens) {
    how = quantized_prefill(type, false);
    token_blocks = (x.T + how.tokens - 1) / how.tokens;
    if (blocks_of(how.outputs) * token_blocks < multiprocessors_) how = quantized_prefill(type, true);
  }

  QuantizedProducts products;
  products.cols = x.cols;
  int blocks = 0;
  for (const Product& p : of) {
    const auto& w = static_cast<const DeviceMatrix&>(*p.w);
    products.of[products.count++] = {w.data, p.y, p.bias, int(w.rows), p.accumulate == Accumulate::yes, blocks};
    blocks += int((w.rows + how.outputs - 1) / how.outputs);
  }
  run("a product with quantized weights", how.kernel, dim3(unsigned(blocks), unsigned(token_blocks)),
      dim3(unsigned(how.threads)), how.shared, products, x);
}

}  // namespace minigpt4::cuda
