// The table of types and the 16-bit floats, these over all their values.
#include "core/dtype.h"

#include <cmath>
#include <limits>

#include "check.h"

using namespace minigpt4;

TEST("dtype: numbers, names and block sizes") {
  CHECK_EQUAL(std::string(name(Type::Q4_K)), "Q4_K");
  CHECK_EQUAL(uint32_t(*type_by_name("q4_k")), 12u);
  CHECK_EQUAL(uint32_t(*type_by_name("BF16")), 30u);
  CHECK(!type_by_name("Q4_") && !type_by_name("q4_k_m") && !type_by_name("") && !type_by_name("IQ1_S"));
  CHECK(find_type(30) != nullptr && find_type(30)->type == Type::BF16);
  CHECK(find_type(4) == nullptr && find_type(9) == nullptr && find_type(43) == nullptr && find_type(~0u) == nullptr);
  CHECK_EQUAL(std::string(gguf_type_name(16)), "IQ2_XXS");
  CHECK_EQUAL(std::string(gguf_type_name(39)), "MXFP4");
  CHECK_EQUAL(std::string(gguf_type_name(42)), "Q2_0");
  CHECK(gguf_type_name(5) == nullptr && gguf_type_name(37) == nullptr && gguf_type_name(43) == nullptr);
  for (uint32_t number = 0; number < 64; ++number) {
    const TypeInfo* found = find_type(number);
    if (!found) continue;
    CHECK_EQUAL(uint32_t(found->type), number);
    CHECK_EQUAL(std::string(found->name), std::string(gguf_type_name(number)));
    CHECK(type_by_name(found->name) == found->type);
    CHECK(&info(found->type) == found);
  }
}

TEST("dtype: bytes of a row") {
  CHECK_EQUAL(row_bytes(Type::F32, 3), 12u);
  CHECK_EQUAL(row_bytes(Type::Q4_0, 1408), 1408u / 32 * 18);
  CHECK_EQUAL(row_bytes(Type::Q6_K, 4096), 16u * 210);
  CHECK_ERROR(code::shape, "blocks hold 256", row_bytes(Type::Q4_K, 1408));
  CHECK_ERROR(code::shape, "addresses", row_bytes(Type::F32, uint64_t(1) << 63));
}

TEST("dtype: every half goes to the float it is and back") {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const int exponent = int(half >> 10) & 31, fraction = int(half & 1023);
    const float sign = half & 0x8000 ? -1.f : 1.f;
    const float found = half_to_float(uint16_t(half));
    if (exponent == 31 && fraction != 0) {
      CHECK(std::isnan(found) && std::isnan(half_to_float(float_to_half(found))));
      continue;
    }
    const float expected = exponent == 31  ? INFINITY
                           : exponent == 0 ? std::ldexp(float(fraction), -24)
                                           : std::ldexp(float(1024 + fraction), exponent - 25);
    CHECK_EQUAL(std::bit_cast<uint32_t>(found), std::bit_cast<uint32_t>(std::copysign(expected, sign)));
    CHECK_EQUAL(float_to_half(found), half);
  }
}

TEST("dtype: floats go to the nearest half, ties to the even one") {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const float low = half_to_float(uint16_t(half));
    // what follows the largest half counts as 65536 for rounding, and becomes infinity
    const float high = half == 0x7bff ? 65536.f : half_to_float(uint16_t(half + 1));
    const float middle = low + (high - low) / 2;  // exact: one bit more than a half has
    const uint32_t even = half & 1 ? half + 1 : half;
    CHECK_EQUAL(float_to_half(middle), even);
    CHECK_EQUAL(float_to_half(std::nextafter(middle, 0.f)), half);
    CHECK_EQUAL(float_to_half(std::nextafter(middle, INFINITY)), half + 1);
    CHECK_EQUAL(float_to_half(-middle), 0x8000 | even);
  }
  CHECK_EQUAL(float_to_half(1e30f), 0x7c00);
  CHECK_EQUAL(float_to_half(-INFINITY), 0xfc00);
  CHECK_EQUAL(float_to_half(1e-30f), 0);
}

TEST("dtype: bf16 keeps the upper half of the bits, rounded") {
  for (uint32_t high = 0; high < 0x7f80; ++high) {
    const auto at = [&](uint32_t low) { return float_to_bf16(std::bit_cast<float>(high << 16 | low)); };
    CHECK_EQUAL(at(0), high);
    CHECK_EQUAL(at(0x7fff), high);
    CHECK_EQUAL(at(0x8000), high & 1 ? high + 1 : high);
    CHECK_EQUAL(at(0x8001), high + 1);
    CHECK_EQUAL(std::bit_cast<uint32_t>(bf16_to_float(uint16_t(high))), high << 16);
  }
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  // a NaN whose payload lies in the lower half only must not become infinity
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}
