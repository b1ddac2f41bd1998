// Rotary positions: the table of cosines and sines, and turning the heads of a row by it, forth or back. In the turn a
// block is a row (all its heads read the same line of the table), a thread turns two adjacent pairs at a time.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {
namespace {

/// Cosine and sine of a float32 angle, in double precision and rounded: correctly for all practical purposes. The
/// runtime's own functions keep a path for huge angles in local memory.
__device__ float2 direction(float angle) {
  constexpr double half_pi = 0x1.921fb54442d18p+0, half_pi_rest = 0x1.1a62633145c07p-54;
  const double quarters = rint(double(angle) * 0x1.45f306dc9c883p-1);  // times 2 / π
  // The first step is exact: both products' last bits are at least those that a double below 1 has.
  const double r = fma(-quarters, half_pi_rest, fma(-quarters, half_pi, double(angle)));
  const double q = r * r;
  // Taylor's series: for |r| <= π / 4 the first terms left out are r^17 / 17! < 5e-17 and r^18 / 18! < 3e-18.
  double s = -1.0 / 1307674368000.0;
  s = fma(s, q, 1.0 / 6227020800.0);
  s = fma(s, q, -1.0 / 39916800.0);
  s = fma(s, q, 1.0 / 362880.0);
  s = fma(s, q, -1.0 / 5040.0);
  s = fma(s, q, 1.0 / 120.0);
  s = fma(s, q, -1.0 / 6.0);
  s = fma(s * q, r, r);
  double c = 1.0 / 20922789888000.0;
  c = fma(c, q, -1.0 / 87178291200.0);
  c = fma(c, q, 1.0 / 479001600.0);
  c = fma(c, q, -1.0 / 3628800.0);
  c = fma(c, q, 1.0 / 40320.0);
  c = fma(c, q, -1.0 / 720.0);
  c = fma(c, q, 1.0 / 24.0);
  c = fma(c, q, -0.5);
  c = fma(c, q, 1.0);
  const int quarter = int((long long)(quarters) & 3);
  const float sine = float(s), cosine = float(c);
  switch (quarter) {
    case 0:
      return make_float2(cosine, sine);
    case 1:
      return make_float2(-sine, cosine);
    case 2:
      return make_float2(-cosine, -sine);
    default:
      return make_float2(sine, -cosine);
  }
}

__global__ void __launch_bounds__(kValueThreads)
    rope_table_kernel(float* table, const int32_t* positions, const float* frequencies, int64_t n, int half) {
  gpu::wait_for_previous();
  for_values<Singles>(n, [&](auto, int64_t i) {
    const float angle = float(positions[i / half]) * frequencies[i % half];
    reinterpret_cast<float2*>(table)[i] = direction(angle);
  });
}

/// Access: of x and table alike; a pack of Fours is two pairs. Otherwise a pair is two accesses.
template <class Access>
__global__ void __launch_bounds__(256) rope_kernel(float* x, const float* table, int H, int D, int half, float sign) {
  constexpr int pairs = Access::width == 4 ? 2 : 1;
  x += int64_t(blockIdx.x) * H * D;
  table += int64_t(blockIdx.x) * half * 2;
  const int packs = half / pairs;
  for (int item = int(threadIdx.x); item < H * packs; item += int(blockDim.x)) {
    const int at = item % packs * pairs * 2;
    float* to = x + int64_t(item / packs) * D + at;
    float in[pairs * 2], turn[pairs * 2];
    for (int j = 0; j < pairs * 2; j += Access::width) {
      const auto part = Access::load(to + j), angle = Access::load(table + at + j);
      for (int k = 0; k < Access::width; ++k) in[j + k] = part.v[k], turn[j + k] = angle.v[k];
    }
    for (int j = 0; j < pairs * 2; j += 2) {
      const float a = in[j], b = in[j + 1], c = turn[j], s = sign * turn[j + 1];
      in[j] = a * c - b * s;
      in[j + 1] = a * s + b * c;
    }
    for (int j = 0; j < pairs * 2; j += Access::width) {
      typename Access::Values part;
      for (int k = 0; k < Access::width; ++k) part.v[k] = in[j + k];
      Access::store(to + j, part);
    }
  }
}

/// Calls body(Access(), threads) for heads of D values of which 2 · half are turned.
template <class Body>
void with_rope_access(const float* x, const float* table, int H, int D, int half, Body&& body) {
  const bool whole = D % 4 == 0 && half % 2 == 0 && aligned16({x, table});
  const int items = whole ? H * half / 2 : H * half;
  const unsigned threads = unsigned(std::clamp((items + 31) / 32 * 32, 32, 256));
  if (whole) {
    body(Fours(), threads);
  } else {
    body(Singles(), threads);
  }
}

}  // namespace

void CudaOps::rope_table(float* table, const int32_t* positions, const float* frequencies, int T, int half) {
  const int64_t n = int64_t(T) * half;
  run_overlapping("rope_table", rope_table_kernel, value_blocks(n, 1, multiprocessors_), kValueThreads, 0, table,
                  positions, frequencies, n, half);
}

void CudaOps::rope(float* x, const float* table, int T, int H, int D, int half) {
  with_rope_access(x, table, H, D, half, [&](auto access, unsigned threads) {
    run("rope", rope_kernel<decltype(access)>, dim3(unsigned(T)), dim3(threads), 0, x, table, H, D, half, 1.0f);
  });
}

void CudaOps::rope_dx(float* dx, const float* table, int T, int H, int D, int half) {
  with_rope_access(dx, table, H, D, half, [&](auto access, unsigned threads) {
    run("rope_dx", rope_kernel<decltype(access)>, dim3(unsigned(T)), dim3(threads), 0, dx, table, H, D, half, -1.0f);
  });
}

}  // namespace minigpt4::cuda
