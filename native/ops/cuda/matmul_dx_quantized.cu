// dx = dy · w for quantized weights. dy and the dequantized values are rounded to bf16 (the CPU multiplies them in float32):
// each product then has a relative error of 2^-8 at most, sums are float32.
#include "core/error.h"
#include "ops/cuda/matmul_dx_quantized.h"

namespace minigpt4::cuda {

DxKernel dx_kernel_of_blocks(Type type, size_t shape) {
  switch (type) {
    case Type::Q4_0:
      return dx_kernel<QuantizedUnits<Type::Q4_0>>(shape);
    case Type::Q4_1:
      return dx_kernel<QuantizedUnits<Type::Q4_1>>(shape);
    case Type::Q5_0:
      return dx_kernel<QuantizedUnits<Type::Q5_0>>(shape);
    case Type::Q5_1:
      return dx_kernel<QuantizedUnits<Type::Q5_1>>(shape);
    case Type::Q8_0:
      return dx_kernel<QuantizedUnits<Type::Q8_0>>(shape);
    default:
      fail(code::internal, "matmul_dx has no kernel for weights of type ", name(type));
  }
}

void CudaOps::matmul_dx_quantized(float* dx, const DeviceMatrix& w, const float* dy, int T, bool accumulate) {
  const PreparedRows rows = prepare({dy}, RowKind::bf16, T, w.rows);
  const size_t shape = quickest_tile(kDxTiles, w.cols, T, multiprocessors_);
  const TensorTile& tile = kDxTiles[shape];
  const DxKernel kernel =
      info(w.type).block_values == 32 ? dx_kernel_of_blocks(w.type, shape) : dx_kernel_of_super_blocks(w.type, shape);
  run("matmul_dx", kernel, tile.grid(w.cols, T), dim3(unsigned(tile.threads())), dx_shared_bytes(tile),
      dx_product(dx, w, rows, accumulate));
}

}  // namespace minigpt4::cuda
