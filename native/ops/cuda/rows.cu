// Rows from and to places that a list names. A block is a row of the dense side.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

template <class Access>
__global__ void __launch_bounds__(1024) gather_rows_kernel(float* y, const float* x, const int32_t* rows, int C) {
  gpu::wait_for_previous();
  const float* from = x + int64_t(rows[blockIdx.x]) * C;
  float* to = y + int64_t(blockIdx.x) * C;
  for_row<Access>(C, [&](int i) { Access::store(to + i, Access::load(from + i)); });
}

template <class Access>
__global__ void __launch_bounds__(1024) scatter_rows_kernel(float* y, const float* x, const int32_t* rows, int C) {
  const float* from = x + int64_t(blockIdx.x) * C;
  float* to = y + int64_t(rows[blockIdx.x]) * C;
  for_row<Access>(C, [&](int i) { Access::store(to + i, Access::load(from + i)); });
}

/// The groups of LooseFours are of no use to a copy.
template <class Body>
void with_copy_access(int C, std::initializer_list<const void*> pointers, Body&& body) {
  if (C % Fours::width == 0 && aligned16(pointers)) {
    body(Fours());
  } else {
    body(Singles());
  }
}

}  // namespace

void CudaOps::gather_rows(float* y, const float* x, const int32_t* rows, int n, int C) {
  with_copy_access(C, {y, x}, [&](auto access) {
    using Access = decltype(access);
    run_overlapping("gather_rows", gather_rows_kernel<Access>, dim3(unsigned(n)), dim3(row_threads(C / Access::width)),
                    0, y, x, rows, C);
  });
}

void CudaOps::scatter_rows(float* y, const float* x, const int32_t* rows, int n, int C) {
  with_copy_access(C, {y, x}, [&](auto access) {
    using Access = decltype(access);
    run("scatter_rows", scatter_rows_kernel<Access>, dim3(unsigned(n)), dim3(row_threads(C / Access::width)), 0, y, x,
        rows, C);
  });
}

}  // namespace minigpt4::cuda
