// Products with F16 and BF16 weights. Activations are rounded to the weights' type when they are prepared (the CPU keeps
// them in float32): F16 activations above 65504 become infinite, as they would with half-precision tensors. Products of two
// 11-bit (8-bit) numbers are exact in float32; they are added in float32, 16 columns at a time by the matrix units.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/matmul_half_many.h"

namespace minigpt4::cuda {

namespace {

constexpr int kMostFewRows = 32;

using Kernel = void (*)(HalfProducts);

template <Type type>
Kernel few_kernel(int token_tiles) {
  return token_tiles > 2 ? Kernel(matmul_half_few<type, 4>)
                         : (token_tiles > 1 ? Kernel(matmul_half_few<type, 2>) : Kernel(matmul_half_few<type, 1>));
}

template <Type type>
Kernel many_kernel(size_t shape) {
  constexpr Kernel kernels[] = {matmul_half_many<type, 0>, matmul_half_many<type, 1>, matmul_half_many<type, 2>,
                                matmul_half_many<type, 3>};
  static_assert(std::size(kernels) == std::size(kHalfTiles));
  return kernels[shape];
}

}  // namespace

void CudaOps::matmul_half(std::span<const Product> of, const PreparedRows& x) {
  if (of.empty() || x.T <= 0) return;
  if (of.size() > size_t(kProductsAtOnce)) {
    fail(code::internal, "one launch was given ", of.size(), " products, expected at most ", kProductsAtOnce);
  }
  int64_t outputs = 0;
  for (const Product& p : of) outputs += p.w->rows;
  const bool f16 = of[0].w->type == Type::F16, few = x.T <= kMostFewRows;
  const size_t shape = few ? 0 : quickest_tile(kHalfTiles, outputs, x.T, multiprocessors_);
  const TensorTile& tile = kHalfTiles[shape];

  HalfProducts products{};
  products.rows = x.codes;
  products.steps = int(half_col_tiles(of[0].w->cols));
  products.token_tiles = x.token_tiles();
  const int block_tiles = few ? kFewRowTiles : tile.block_output_tiles();
  int blocks = 0;
  for (const Product& p : of) {
    const auto& w = static_cast<const DeviceMatrix&>(*p.w);
    const int row_tiles = int((w.rows + 15) / 16);
    products.of[products.count++] = {
        w.data, {p.y, p.bias, int(w.rows), x.T, p.accumulate == Accumulate::yes}, row_tiles, blocks};
    blocks += (row_tiles + block_tiles - 1) / block_tiles;
  }
  if (few) {
    const int room = products.token_tiles > 2 ? 4 : products.token_tiles;
    const Kernel kernel = f16 ? few_kernel<Type::F16>(room) : few_kernel<Type::BF16>(room);
    run_overlapping("matmul", kernel, dim3(unsigned(blocks)), dim3(32 * kFewRowTiles),
                    size_t(few_stages(room) * few_stage_bytes(room)), products);
  } else {
    const Kernel kernel = f16 ? many_kernel<Type::F16>(shape) : many_kernel<Type::BF16>(shape);
    const dim3 grid(unsigned((x.T + tile.tokens() - 1) / tile.tokens()), unsigned(blocks));
    run_overlapping("matmul", kernel, grid, dim3(unsigned(tile.threads())),
                    size_t(kManyStages * many_stage_bytes(tile)), products);
  }
}

}  // namespace minigpt4::cuda
