// Pictures to patches, and patches to the rows that the encoder begins with.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

constexpr int kPatchThreads = 256;

/// A block is a piece of a picture's patches, its threads go along the output, which is written without gaps. Reads are runs
/// of p floats; what else is in their sectors belongs to the neighbouring patch, which asks for it at about the same time.
__global__ void __launch_bounds__(kPatchThreads)
    patchify_kernel(float* y, const float* pixels, int S, int p, int side, int pieces) {
  const int64_t picture = blockIdx.x / unsigned(pieces);
  const int width = 3 * p * p, all = side * side * width;
  const int i = int(blockIdx.x % unsigned(pieces)) * kPatchThreads + int(threadIdx.x);
  if (i >= all) return;
  const int patch = i / width, line = i % width / p;  // of the patch's channels, one below the other
  const int row = patch / side * p + line % p, column = patch % side * p + i % p;
  y[picture * all + i] = pixels[((picture * 3 + line / p) * S + row) * S + column];
}

/// A block is a row of x.
template <class Access>
__global__ void __launch_bounds__(1024) prepend_class_kernel(float* x, const float* patches, const float* class_token,
                                                             const float* positions, int P, int C) {
  const int64_t picture = blockIdx.x / (P + 1);
  const int row = int(blockIdx.x % (P + 1));
  const float* from = row == 0 ? class_token : patches + (picture * P + row - 1) * C;
  const float* place = positions + int64_t(row) * C;
  float* to = x + int64_t(blockIdx.x) * C;
  for_row<Access>(C, [&](int i) {
    auto sum = Access::load(from + i);
    const auto add = Access::load(place + i);
    for (int j = 0; j < Access::width; ++j) sum.v[j] += add.v[j];
    Access::store(to + i, sum);
  });
}

}  // namespace

void CudaOps::patchify(float* y, const float* pixels, int B, int S, int p) {
  const int side = S / p, pieces = (side * side * 3 * p * p + kPatchThreads - 1) / kPatchThreads;
  run("patchify", patchify_kernel, dim3(unsigned(B * pieces)), dim3(kPatchThreads), 0, y, pixels, S, p, side, pieces);
}

void CudaOps::prepend_class(float* x, const float* patches, const float* class_token, const float* positions, int B,
                            int P, int C) {
  with_row_access(C, {x, patches, class_token, positions}, [&](auto access) {
    using Access = decltype(access);
    run("prepend_class", prepend_class_kernel<Access>, dim3(unsigned(B * (P + 1))),
        dim3(row_threads(C / Access::width)), 0, x, patches, class_token, positions, P, C);
  });
}

}  // namespace minigpt4::cuda
