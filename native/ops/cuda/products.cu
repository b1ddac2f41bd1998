// Products of the same rows with several weights: the rows are prepared once for each kind of weights, and weights of one type go
// into one launch (but F32).
#include "ops/cuda/cuda_ops.h"

namespace minigpt4::cuda {

void CudaOps::products(std::span<const Product> of, const Rows& rows, int T) {
  if (of.empty() || T <= 0) return;
  const int64_t cols = of[0].w->cols;
  for (const Product& p : of) {
    if (p.w->cols != cols) {
      fail(code::internal, "products of the same rows have weights of ", cols, " and of ", p.w->cols, " columns");
    }
  }
  for (const RowKind kind : {RowKind::q8, RowKind::f16, RowKind::bf16, RowKind::plain}) {
    PreparedRows x;
    bool prepared = false;
    Product together[kProductsAtOnce];
    for (size_t i = 0; i < of.size(); ++i) {
      const Type type = of[i].w->type;
      if (row_kind(type) != kind) continue;
      if (!prepared) x = prepare(rows, kind, T, cols);
      prepared = true;
      if (kind == RowKind::plain) {
        matmul_f32(of[i], x);
      } else {
        bool first = true;
        for (size_t j = 0; j < i; ++j) first &= of[j].w->type != type;
        if (!first) continue;  // gone with the first of its type
        size_t count = 0;
        for (size_t j = i; j < of.size(); ++j) {
          if (of[j].w->type == type) together[count++] = of[j];
          if (count == kProductsAtOnce || (count > 0 && j + 1 == of.size())) {
            kind == RowKind::q8 ? matmul_quantized({together, count}, x) : matmul_half({together, count}, x);
            count = 0;
          }
        }
      }
    }
  }
}

}  // namespace minigpt4::cuda
