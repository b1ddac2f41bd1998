// Products with F16 and BF16 weights. Activations are rounded to the weights' type when they are prepared (the CPU keeps
// them in float32): F16 activations above 65504 become infinite, as they would with half-precision tensors. Products of two
// 11-bit (8-bit) numbers are exact in float32; they are added in float32, 16 columns at a time by the matrix units.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/matmul_half_many.h"

namespace minigpt4::cuda {

namespace {

constexpr int kMostFewRows = 32;

using Kernel = void (*)(HalfProduct);

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

void CudaOps::matmul_half(const Product& p, const PreparedRows& x) {
  const auto& w = static_cast<const DeviceMatrix&>(*p.w);
  if (x.T <= 0) return;
  const bool f16 = w.type == Type::F16;
  const HalfProduct product{w.data,
                            x.codes,
                            int(half_col_tiles(w.cols)),
                            int((w.rows + 15) / 16),
                            x.token_tiles(),
                            {p.y, p.bias, int(w.rows), x.T, p.accumulate == Accumulate::yes}};
  if (x.T <= kMostFewRows) {
    const int room = product.token_tiles > 2 ? 4 : product.token_tiles;
    const Kernel kernel = f16 ? few_kernel<Type::F16>(room) : few_kernel<Type::BF16>(room);
    const dim3 grid(unsigned((product.row_tiles + kFewRowTiles - 1) / kFewRowTiles));
    run("matmul", kernel, grid, dim3(32 * kFewRowTiles), size_t(few_stages(room) * few_stage_bytes(room)), product);
    return;
  }
  const size_t shape = quickest_tile(kHalfTiles, w.rows, x.T, multiprocessors_);
  const TensorTile& tile = kHalfTiles[shape];
  const Kernel kernel = f16 ? many_kernel<Type::F16>(shape) : many_kernel<Type::BF16>(shape);
  run("matmul", kernel, tile.grid(w.rows, x.T), dim3(unsigned(tile.threads())),
      size_t(kManyStages * many_stage_bytes(tile)), product);
}

}  // namespace minigpt4::cuda
