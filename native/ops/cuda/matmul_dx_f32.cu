// dx = dy · w for F32 weights: float32 fused multiply-adds as on the CPU, one chain over the weight's rows.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/float_tile.h"

namespace minigpt4::cuda {

void CudaOps::matmul_dx_f32(float* dx, const DeviceMatrix& w, const float* dy, int T, bool accumulate) {
  const FloatProduct product{{dy, w.rows},
                             {reinterpret_cast<const float*>(w.data), w.cols},
                             T,
                             int(w.cols),
                             int(w.rows),
                             dx,
                             nullptr,
                             accumulate ? FloatSums::add : FloatSums::assign,
                             rows_aligned(dx, nullptr, w.cols)};
  run("matmul_dx", float_product<true, false>, float_grid(T, w.cols), dim3(kFloatThreads), 0, product);
}

}  // namespace minigpt4::cuda
