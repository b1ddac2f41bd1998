// Products with quantized weights on the host's side: which kernel, how many blocks.
#include <algorithm>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/quantized_product.h"

namespace minigpt4::cuda {

namespace {

int64_t output_blocks(std::span<const CudaOps::Product> of, const QuantizedLaunch& how) {
  int64_t blocks = 0;
  for (const CudaOps::Product& p : of) blocks += (p.w->rows + how.outputs - 1) / how.outputs;
  return blocks;
}

/// Of the kernels for more than kDecodeTokens rows the one whose busiest multiprocessor is done first. All give the same bits.
/// Counted are multiply-adds of whole tiles, in percent of the time that one takes in the largest tile: smaller tiles decode the
/// weights more often; four warps alone on a multiprocessor wait for what they have asked for; groups of 32 tokens read
/// the rows once more for every 32 outputs, but cut the columns, which fills a large card with a few hundred outputs.
QuantizedLaunch quickest(Type type, std::span<const CudaOps::Product> of, int T, int multiprocessors) {
  const struct {
    QuantizedLaunch how;
    int cost, alone;  // with other blocks on the multiprocessor, without
  } kernels[] = {{quantized_prefill(type, false), 100, 105},
                 {quantized_prefill(type, true), 110, 170},
                 {quantized_decode(type, T), 150, 150}};
  const auto time = [&](const auto& kernel) {
    const int64_t blocks = output_blocks(of, kernel.how) * token_blocks(T, kernel.how.tokens);
    const int64_t busiest = (blocks + multiprocessors - 1) / multiprocessors;
    return std::max<int64_t>(kernel.alone, busiest * kernel.cost) * kernel.how.outputs * kernel.how.tokens;
  };
  const auto sooner = [&](const auto& a, const auto& b) { return time(a) < time(b); };
  return std::min_element(std::begin(kernels), std::end(kernels), sooner)->how;
}

}  // namespace

void CudaOps::matmul_quantized(std::span<const Product> of, const PreparedRows& x) {
  if (of.empty() || x.T == 0) return;
  if (of.size() > size_t(kProductsAtOnce)) {
    fail(code::internal, "one launch was given ", of.size(), " products, expected at most ", kProductsAtOnce);
  }
  const Type type = of[0].w->type;
  const QuantizedLaunch how =
      x.T <= kDecodeTokens ? quantized_decode(type, x.T) : quickest(type, of, x.T, multiprocessors_);
  QuantizedProducts products;
  products.cols = x.cols;
  int blocks = 0;
  for (const Product& p : of) {
    const auto& w = static_cast<const DeviceMatrix&>(*p.w);
    products.of[products.count++] = {w.data, p.y, p.bias, int(w.rows), p.accumulate == Accumulate::yes, blocks};
    blocks += int((w.rows + how.outputs - 1) / how.outputs);
  }
  run_overlapping("a product with quantized weights", how.kernel,
                  dim3(unsigned(blocks) * unsigned(token_blocks(x.T, how.tokens))), dim3(unsigned(how.threads)),
                  how.shared, products, x);
}

}  // namespace minigpt4::cuda
