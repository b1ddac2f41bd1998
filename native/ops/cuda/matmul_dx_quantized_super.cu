// The kernels of matmul_dx_quantized.cu for types with super-blocks of 256 values.
#include "core/error.h"
#include "ops/cuda/matmul_dx_quantized.h"

namespace minigpt4::cuda {

DxKernel dx_kernel_of_super_blocks(Type type, size_t shape) {
  switch (type) {
    case Type::Q2_K:
      return dx_kernel<QuantizedUnits<Type::Q2_K>>(shape);
    case Type::Q3_K:
      return dx_kernel<QuantizedUnits<Type::Q3_K>>(shape);
    case Type::Q4_K:
      return dx_kernel<QuantizedUnits<Type::Q4_K>>(shape);
    case Type::Q5_K:
      return dx_kernel<QuantizedUnits<Type::Q5_K>>(shape);
    case Type::Q6_K:
      return dx_kernel<QuantizedUnits<Type::Q6_K>>(shape);
    default:
      fail(code::internal, "matmul_dx has no kernel for weights of type ", name(type));
  }
}

}  // namespace minigpt4::cuda
