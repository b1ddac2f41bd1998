// The gradient of a product with respect to its rows, by the kind of weights.
#include "ops/cuda/cuda_ops.h"

namespace minigpt4::cuda {

void CudaOps::matmul_dx(float* dx, const Matrix& w, const float* dy, int T, Accumulate accumulate) {
  if (T <= 0) return;
  const auto& on_device = static_cast<const DeviceMatrix&>(w);
  const bool add = accumulate == Accumulate::yes;
  if (w.type == Type::F32) {
    matmul_dx_f32(dx, on_device, dy, T, add);
  } else if (is_quantized(w.type)) {
    matmul_dx_quantized(dx, on_device, dy, T, add);
  } else {
    matmul_dx_half(dx, on_device, dy, T, add);
  }
}

}  // namespace minigpt4::cuda
