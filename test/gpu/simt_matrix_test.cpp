// The emulator's matrix units against statements of the fragments that were made elsewhere, and its 16-bit floats and
// integer words against plain arithmetic.
#include <bit>

#include "core/dtype.h"
#include "simt_case.h"

using namespace minigpt4;
using namespace simt_case;

namespace {

enum class Product { f16, bf16, s8_k32, s8_k16 };

/// Registers of all lanes: a[4], b[2], c[4] in, c out.
template <Product kind>
__global__ void multiply(const uint32_t* a, const uint32_t* b, float* c) {
  const unsigned lane = threadIdx.x;
  uint32_t of_a[4], of_b[2] = {b[2 * lane], b[2 * lane + 1]};
  for (unsigned j = 0; j < 4; ++j) of_a[j] = a[4 * lane + j];
  if constexpr (kind == Product::f16 || kind == Product::bf16) {
    float sums[4];
    for (unsigned j = 0; j < 4; ++j) sums[j] = c[4 * lane + j];
    kind == Product::f16 ? gpu::mma_f16(sums, of_a, of_b) : gpu::mma_bf16(sums, of_a, of_b);
    for (unsigned j = 0; j < 4; ++j) c[4 * lane + j] = sums[j];
  } else {
    int32_t sums[4];
    for (unsigned j = 0; j < 4; ++j) sums[j] = int32_t(c[4 * lane + j]);
    if constexpr (kind == Product::s8_k32) gpu::mma_s8_k32(sums, of_a, of_b);
    if constexpr (kind == Product::s8_k16) gpu::mma_s8_k16(sums, {of_a[0], of_a[1]}, of_b[0]);
    for (unsigned j = 0; j < 4; ++j) c[4 * lane + j] = float(sums[j]);
  }
}

/// 16 rows of 16 values 0, 1, 2, … of shared memory through ldmatrix; trans: each 8x8 matrix transposed.
__global__ void load_tile(uint32_t* y, bool trans) {
  GPU_SHARED(uint16_t, tile, [16][24]);
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 256; i += 32) tile[i / 16][i % 16] = uint16_t(i);
  __syncwarp();
  uint32_t r[4];
  const uint16_t* row = &tile[lane % 16][lane / 16 * 8];
  trans ? gpu::ldmatrix_x4_trans(r, row) : gpu::ldmatrix_x4(r, row);
  for (unsigned j = 0; j < 4; ++j) y[4 * lane + j] = r[j];
}

int small(uint32_t& seed, int limit) {
  seed = seed * 1664525u + 1013904223u;
  return int(seed >> 16) % (2 * limit + 1) - limit;
}

/// Fills the fragments by the published layouts (CuTe's atoms), which number a matrix column by column, runs the
/// product and compares with plain sums of integers. `per_register` values of k lie in a register.
template <Product kind>
void check_layout(int k, int per_register, int limit) {
  uint32_t seed = 5;
  std::vector<int> a(size_t(16 * k)), b(size_t(8 * k)), c(16 * 8);
  for (int& value : a) value = small(seed, limit);
  for (int& value : b) value = small(seed, limit);
  for (int& value : c) value = small(seed, limit);
  const auto bits = [](int value) {
    if (kind == Product::f16) return uint32_t(float_to_half(float(value)));
    if (kind == Product::bf16) return uint32_t(float_to_bf16(float(value)));
    return uint32_t(value) & 0xff;
  };
  const int width = 32 / per_register;
  std::vector<uint32_t> of_a(4 * 32, 0), of_b(2 * 32, 0);
  std::vector<float> of_c(4 * 32);
  const int a_registers = 16 * k / 32 / per_register, b_registers = a_registers / 2;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, q = lane % 4;
    for (int j = 0; j < a_registers; ++j) {
      for (int i = 0; i < per_register; ++i) {
        // m + 16k = 32q + g + 16 v0 + 8 v1 + 128 v2, and for bytes 64q + g + 16i + 8 v1 + 256 v2
        const int v1 = j & 1, v2 = j >> 1;
        const int at =
            per_register == 2 ? 32 * q + g + 16 * i + 8 * v1 + 128 * v2 : 64 * q + g + 16 * i + 8 * v1 + 256 * v2;
        of_a[size_t(4 * lane + j)] |= bits(a[size_t(at % 16 * k + at / 16)]) << (width * i);
      }
    }
    for (int j = 0; j < b_registers; ++j) {
      for (int i = 0; i < per_register; ++i) {
        // n + 8k = 16q + g + 8 v0 + 64 v1, and for bytes 32q + g + 8i + 128 v1
        const int at = per_register == 2 ? 16 * q + g + 8 * i + 64 * j : 32 * q + g + 8 * i + 128 * j;
        of_b[size_t(2 * lane + j)] |= bits(b[size_t(at % 8 * k + at / 8)]) << (width * i);
      }
    }
    for (int j = 0; j < 4; ++j) {
      const int at = 32 * q + g + 16 * (j & 1) + 8 * (j >> 1);
      of_c[size_t(4 * lane + j)] = float(c[size_t(at % 16 * 8 + at / 16)]);
    }
  }
  const Device<uint32_t> device_a(of_a), device_b(of_b);
  const Device<float> device_c(of_c);
  const uint32_t *pa = device_a, *pb = device_b;
  CHECK(gpu::launch(multiply<kind>, {.grid = 1, .block = 32}, pa, pb, static_cast<float*>(device_c)) == cudaSuccess);
  const std::vector<float> found = device_c.values();
  for (int lane = 0; lane < 32; ++lane) {
    for (int j = 0; j < 4; ++j) {
      const int at = 32 * (lane % 4) + lane / 4 + 16 * (j & 1) + 8 * (j >> 1);
      int sum = c[size_t(at % 16 * 8 + at / 16)];
      for (int l = 0; l < k; ++l) sum += a[size_t(at % 16 * k + l)] * b[size_t(at / 16 * k + l)];
      CHECK_EQUAL(found[size_t(4 * lane + j)], float(sum));
    }
  }
}

}  // namespace

TEST("simt matrix: fragments of m16n8k16 in 16-bit floats") {
  check_layout<Product::f16>(16, 2, 50);
  check_layout<Product::bf16>(16, 2, 50);
}

TEST("simt matrix: fragments of bytes") {
  check_layout<Product::s8_k32>(32, 4, 127);
  check_layout<Product::s8_k16>(16, 4, 127);
}

TEST("simt matrix: ldmatrix gives the fragments of its product") {
  const Device<uint32_t> y(128);
  for (const bool trans : {false, true}) {
    CHECK(gpu::launch(load_tile, {.grid = 1, .block = 32}, static_cast<uint32_t*>(y), trans) == cudaSuccess);
    const std::vector<uint32_t> found = y.values();
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, q = lane % 4;
      for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 2; ++i) {
          // the A fragment of the tile; transposed, matrix by matrix, the places in it change roles
          int m = g + 8 * (j & 1), k = 2 * q + i + 8 * (j >> 1);
          if (trans) {
            m = 2 * q + i + 8 * (j & 1);
            k = g + 8 * (j >> 1);
          }
          CHECK_EQUAL(found[size_t(4 * lane + j)] >> (16 * i) & 0xffff, uint32_t(16 * m + k));
        }
      }
    }
  }
}

TEST("simt floats: every 16-bit pattern to float32 as the CPU reads it") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float half = gpu::to_float(gpu::f16{uint16_t(bits)}), half_there = half_to_float(uint16_t(bits));
    const float brain = gpu::to_float(gpu::bf16{uint16_t(bits)}), brain_there = bf16_to_float(uint16_t(bits));
    CHECK(std::isnan(half) ? std::isnan(half_there)
                           : std::bit_cast<uint32_t>(half) == std::bit_cast<uint32_t>(half_there));
    CHECK(std::isnan(brain) ? std::isnan(brain_there)
                            : std::bit_cast<uint32_t>(brain) == std::bit_cast<uint32_t>(brain_there));
  }
}

TEST("simt floats: float32 to 16 bits as the CPU rounds, at and beside every tie and over all exponents") {
  uint64_t differences = 0;
  const auto compare = [&](uint32_t bits) {
    const float x = std::bit_cast<float>(bits);
    const uint16_t half = gpu::to_f16(x).bits, brain = gpu::to_bf16(x).bits;
    const uint16_t half_there = float_to_half(x), brain_there = float_to_bf16(x);
    if (std::isnan(x)) {
      differences += !std::isnan(half_to_float(half)) || !std::isnan(half_to_float(half_there));
      differences += !std::isnan(bf16_to_float(brain)) || !std::isnan(bf16_to_float(brain_there));
    } else {
      differences += half != half_there || brain != brain_there;
    }
  };
  // a half's tie is bit 12 (less for subnormals, whose steps widen), a bfloat's bit 15: all upper 20 bits with their
  // neighbours below, and every 251st pattern, which meets all lower bits
  for (uint64_t high = 0; high < (1u << 20); ++high) {
    for (const int32_t low : {-1, 0, 1}) compare(uint32_t(high << 12) + uint32_t(low));
  }
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 251) compare(uint32_t(bits));
  CHECK_EQUAL(differences, 0u);
}

TEST("simt words: bytes, bits and conversions") {
  CHECK_EQUAL(__byte_perm(0x33221100u, 0x77665544u, 0x7610u), 0x77661100u);
  CHECK_EQUAL(__byte_perm(0x80221100u, 0x77665544u, 0xb3b8u), 0xff80ff00u);  // 8: the sign of byte 0; b: of byte 3
  CHECK_EQUAL(__dp4a(int(0x80ff7f02u), int(0x80017f03u), 10), 16384 - 1 + 16129 + 6 + 10);
  CHECK_EQUAL(__dp4a(0xffff0000u, 0xff010000u, 1u), 65025u + 255u + 1u);
  CHECK_EQUAL(__popc(0xf0f00001u), 9);
  CHECK_EQUAL(__ffs(0), 0);
  CHECK_EQUAL(__ffs(8), 4);
  CHECK_EQUAL(__clz(0), 32);
  CHECK_EQUAL(__brev(1u), 0x80000000u);
  CHECK_EQUAL(__float2int_rn(2.5f), 2);
  CHECK_EQUAL(__float2int_rn(-3.5f), -4);
  CHECK_EQUAL(__float2int_rn(3e9f), 2147483647);
  CHECK_EQUAL(__float2int_rn(-3e9f), -2147483647 - 1);
  CHECK_EQUAL(__float2int_rn(NAN), 0);
  CHECK_EQUAL(__float2uint_rn(-1.0f), 0u);
  CHECK_EQUAL(min(-1, 3), -1);
  CHECK_EQUAL(min(-1, 3u), 3u);  // as CUDA's: both unsigned
  CHECK_EQUAL(max(2.0f, NAN), 2.0f);
  CHECK_EQUAL(gpu::exp2_approx(10.0f), 1024.0f);
  CHECK_EQUAL(gpu::exp2_approx(-127.0f), 0.0f);
  CHECK_EQUAL(gpu::exp2_approx(-126.0f), 0x1p-126f);
  CHECK_EQUAL(gpu::exp2_approx(-INFINITY), 0.0f);
}
