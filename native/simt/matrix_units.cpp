// mma and ldmatrix by the fragment layouts of the PTX ISA: each lane puts its registers where they belong in the whole
// matrices, the last one to come multiplies, and each takes its part of the outcome.
#include <bit>
#include <cstring>
#include <string>

#include "simt/execution.h"
#include "simt/gpu_simt.h"

// The products run on the widest vectors the machine has. Every product of two 16-bit floats is exact in float32 and
// sums run over k in order, so the result is the same on all.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SIMT_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define SIMT_CLONES
#endif

namespace minigpt4::simt {

namespace {

constexpr uint32_t whole_warp = 0xffffffffu;

typedef float Floats8 __attribute__((vector_size(32)));

inline float half_bits(uint32_t half) {
  const uint32_t magnitude = (half & 0x7fff) << 13;
  // as gpu::to_float, without a branch: infinity and NaN get the largest exponent
  const uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
  return std::bit_cast<float>((half & 0x8000) << 16 |
                              std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f) | special);
}

inline void products(MatrixOperands& m, const float (&a)[256], const float (&b)[128]) {
  Floats8 rows[16], sums[16];
  std::memcpy(rows, b, sizeof(rows));
  std::memcpy(sums, m.c, sizeof(sums));
  for (int i = 0; i < 16; ++i) {
    Floats8 sum = sums[i];
    for (int k = 0; k < 16; ++k) sum += a[16 * i + k] * rows[k];
    sums[i] = sum;
  }
  std::memcpy(m.c, sums, sizeof(sums));
}

SIMT_CLONES void multiply_f16(MatrixOperands& m) {
  float a[256], b[128];
  for (int i = 0; i < 256; ++i) a[i] = half_bits((&m.a16[0][0])[i]);
  for (int i = 0; i < 128; ++i) b[i] = half_bits((&m.b16[0][0])[i]);
  products(m, a, b);
}

SIMT_CLONES void multiply_bf16(MatrixOperands& m) {
  float a[256], b[128];
  for (int i = 0; i < 256; ++i) a[i] = std::bit_cast<float>(uint32_t((&m.a16[0][0])[i]) << 16);
  for (int i = 0; i < 128; ++i) b[i] = std::bit_cast<float>(uint32_t((&m.b16[0][0])[i]) << 16);
  products(m, a, b);
}

template <int K>
inline void multiply_bytes(MatrixOperands& m) {
  for (int i = 0; i < 16; ++i) {
    for (int n = 0; n < 8; ++n) {
      uint32_t sum = uint32_t(m.c32[i][n]);
      int dot = 0;
      for (int k = 0; k < K; ++k) dot += int(m.a8[i][k]) * int(m.b8[n][k]);
      m.c32[i][n] = int32_t(sum + uint32_t(dot));
    }
  }
}
SIMT_CLONES void multiply_s8_k32(MatrixOperands& m) { multiply_bytes<32>(m); }
SIMT_CLONES void multiply_s8_k16(MatrixOperands& m) { multiply_bytes<16>(m); }

void put(void* to, uint32_t bits) { std::memcpy(to, &bits, 4); }

}  // namespace

void matrix_multiply(Matrix kind, void* c, const uint32_t* a, const uint32_t* b, const char* file, int line) {
  static const char* const names[] = {"mma_f16", "mma_bf16", "mma_s8_k32", "mma_s8_k16"};
  Execution& here = execution();
  MatrixOperands& m = here.warp().matrix;
  const unsigned g = current->lane / 4, q = current->lane % 4;
  switch (kind) {
    case Matrix::f16_k16:
    case Matrix::bf16_k16:
      for (unsigned j = 0; j < 4; ++j) put(&m.a16[g + 8 * (j % 2)][2 * q + 8 * (j / 2)], a[j]);
      for (unsigned j = 0; j < 2; ++j) {
        m.b16[2 * q + 8 * j][g] = uint16_t(b[j]);
        m.b16[2 * q + 8 * j + 1][g] = uint16_t(b[j] >> 16);
      }
      break;
    case Matrix::s8_k32:
      for (unsigned j = 0; j < 4; ++j) put(&m.a8[g + 8 * (j % 2)][4 * q + 16 * (j / 2)], a[j]);
      for (unsigned j = 0; j < 2; ++j) put(&m.b8[g][4 * q + 16 * j], b[j]);
      break;
    case Matrix::s8_k16:
      for (unsigned j = 0; j < 2; ++j) put(&m.a8[g + 8 * j][4 * q], a[j]);
      put(&m.b8[g][4 * q], b[0]);
      break;
  }
  // a float or an integer: the bits lie in the same place
  std::byte* parts = static_cast<std::byte*>(c);
  for (unsigned j = 0; j < 2; ++j) std::memcpy(&m.c[g + 8 * j][2 * q], parts + 8 * j, 8);
  if (here.arrive(names[int(kind)], whole_warp, {file, line})) {
    switch (kind) {
      case Matrix::f16_k16:
        multiply_f16(m);
        break;
      case Matrix::bf16_k16:
        multiply_bf16(m);
        break;
      case Matrix::s8_k32:
        multiply_s8_k32(m);
        break;
      case Matrix::s8_k16:
        multiply_s8_k16(m);
        break;
    }
    here.release(whole_warp);
  }
  for (unsigned j = 0; j < 2; ++j) std::memcpy(parts + 8 * j, &m.c[g + 8 * j][2 * q], 8);
}

void matrix_load(uint32_t* r, const void* row, bool transposed, const char* file, int line) {
  Execution& here = execution();
  Context& me = *current;
  Warp& warp = here.warp();
  const char* name = transposed ? "ldmatrix_x4_trans" : "ldmatrix_x4";
  const std::byte* at = static_cast<const std::byte*>(row);
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    const OwnCode own;
    report(FindingKind::misaligned, file, line, std::string(name) + " of a row whose address is no multiple of 16");
    abandon_launch();
  }
  bool inside = false;
  for (const SharedSlot& slot : me.block->slots) inside |= at >= slot.begin && at + 16 <= slot.begin + slot.bytes;
  if (!inside) {
    const OwnCode own;
    report(FindingKind::out_of_bounds, file, line,
           std::string(name) + " of a row whose 16 bytes are not inside of one array of shared memory");
    abandon_launch();
  }
  warp.row[me.lane] = row;
  if (events.on_ldmatrix_row) events.on_ldmatrix_row(me, row, {file, line});
  // Others may write the rows again as soon as they have theirs, so all fragments are read by the last to come.
  auto& fragments = warp.fragments;
  if (here.arrive(name, whole_warp, {file, line})) {
    for (unsigned m = 0; m < 4; ++m) {
      uint16_t matrix[8][8];
      for (unsigned i = 0; i < 8; ++i) std::memcpy(matrix[i], warp.row[8 * m + i], 16);
      for (unsigned lane = 0; lane < warp_lanes; ++lane) {
        const unsigned g = lane / 4, q = lane % 4;
        fragments[lane][m] = transposed ? uint32_t(matrix[2 * q][g]) | uint32_t(matrix[2 * q + 1][g]) << 16
                                        : uint32_t(matrix[g][2 * q]) | uint32_t(matrix[g][2 * q + 1]) << 16;
      }
    }
    here.release(whole_warp);
  }
  std::memcpy(r, fragments[me.lane], 16);
}

}  // namespace minigpt4::simt
