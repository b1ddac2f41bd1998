// What the tests of float products and of all products' gradients share: the sum in double precision of what a device
// multiplies, and devices with so few multiprocessors that small shapes meet the largest tiles.
#pragma once

#include <string>
#include <vector>

#include "device_case.h"

namespace float_product_case {

using minigpt4::Ops;
using minigpt4::Type;
using ops_case::Floats;
using Doubles = std::vector<double>;

/// The number as the matrix units get it: F32 as it is, F16 and BF16 rounded to nearest even.
float rounded(float value, Type type);
Floats rounded(Floats values, Type type);

/// left[m, k] · right[n, k]ᵀ, and how large its terms are in all.
struct Sums {
  Doubles sum, size;
};
Sums sums(const Floats& left, const Floats& right, int64_t m, int64_t n, int64_t k);
Floats transposed(const Floats& values, int64_t rows, int64_t cols);

/// How far a matrix unit's float32 sum of k products may be from the exact one, relative to the size of its terms: 16
/// products are aligned to the largest of them and of the sum so far, cut off below 2^-23 of it, and added: 17 cuts an
/// instruction, of which the terms' size bounds each; and the last additions (bias, what was there).
inline double matrix_unit_error(int64_t k) { return (17.0 * double((k + 15) / 16) + 2) * 0x1p-23; }

/// In the emulator a device with one multiprocessor, for which the tile that wastes least is the quickest; on a GPU the
/// device itself, where it takes more tokens and outputs.
Ops& one_multiprocessor();

}  // namespace float_product_case
