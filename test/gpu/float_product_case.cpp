#include "float_product_case.h"

#include <cmath>
#include <memory>

#include "core/dtype.h"
#include "ops/cuda/devices.h"
#ifdef MINIGPT4_SIMT
#include "simt/faults.h"
#endif

namespace float_product_case {

float rounded(float value, Type type) {
  if (type == Type::F16) return minigpt4::half_to_float(minigpt4::float_to_half(value));
  if (type == Type::BF16) return minigpt4::bf16_to_float(minigpt4::float_to_bf16(value));
  return value;
}

Floats rounded(Floats values, Type type) {
  for (float& value : values) value = rounded(value, type);
  return values;
}

Sums sums(const Floats& left, const Floats& right, int64_t m, int64_t n, int64_t k) {
  Sums of{Doubles(size_t(m * n)), Doubles(size_t(m * n))};
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, size = 0;
      for (int64_t l = 0; l < k; ++l) {
        const double term = double(left[size_t(i * k + l)]) * right[size_t(j * k + l)];
        sum += term;
        size += std::fabs(term);
      }
      of.sum[size_t(i * n + j)] = sum;
      of.size[size_t(i * n + j)] = size;
    }
  }
  return of;
}

Floats transposed(const Floats& values, int64_t rows, int64_t cols) {
  Floats turned(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) turned[size_t(c * rows + r)] = values[size_t(r * cols + c)];
  }
  return turned;
}

Ops& one_multiprocessor() {
#ifdef MINIGPT4_SIMT
  static const std::unique_ptr<Ops> ops = [] {
    minigpt4::simt::configure("processors=1");
    auto made = minigpt4::cuda::make_device_ops(0);
    minigpt4::simt::configure("processors=132");
    return made;
  }();
  return *ops;
#else
  return device_case::device();
#endif
}

}  // namespace float_product_case
