// Correct kernels give the same results in every order of the threads; kernels that lack a barrier do not, in the
// orders that are there to show it. And what warps, blocks and atomics compute.
#include <atomic>
#include <thread>

#include "simt_case.h"

using namespace minigpt4;
using namespace simt_case;

namespace {

template <bool with_barrier>
__global__ void block_sums(const float* x, float* y, int count) {
  GPU_SHARED(float, parts, [8]);
  float sum = 0;
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) sum += x[blockIdx.x * unsigned(count) + unsigned(i)];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, unsigned(step));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  if (with_barrier) __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < 8; ++w) sum += parts[w];
  y[blockIdx.x] = sum;
}

constexpr int tile = 32, depth = 16, pitch = depth + 8;

/// c[m, n] = a[m, k] · b[n, k]: a block of 4 warps makes 32 rows of 32 columns, 16 each; the next 16 values of k are
/// copied while these are multiplied.
template <bool second_barrier>
__global__ void __launch_bounds__(128) product(const gpu::f16* a, const gpu::f16* b, float* c, int n, int k) {
  GPU_SHARED(gpu::f16, tile_a, [2][tile][pitch]);
  GPU_SHARED(gpu::f16, tile_b, [2][tile][pitch]);
  const unsigned thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const unsigned row0 = blockIdx.y * tile, column0 = blockIdx.x * tile;
  const auto start = [&](int step) {
    const unsigned row = thread % 64 / 2, part = thread % 2 * 8;
    const bool of_a = thread < 64;
    const gpu::f16* from = of_a ? a + (row0 + row) * unsigned(k) : b + (column0 + row) * unsigned(k);
    gpu::cp_async16(&(of_a ? tile_a : tile_b)[step % 2][row][part], from + step * depth + part);
  };
  float sums[2][4] = {};
  const int steps = k / depth;
  start(0);
  gpu::cp_commit();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) start(step + 1);
    gpu::cp_commit();
    gpu::cp_wait<1>();
    __syncthreads();
    uint32_t of_a[4], of_b[4];
    gpu::ldmatrix_x4(of_a, &tile_a[step % 2][warp / 2 * 16 + lane % 16][lane / 16 * 8]);
    gpu::ldmatrix_x4(of_b, &tile_b[step % 2][warp % 2 * 16 + lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8]);
    gpu::mma_f16(sums[0], of_a, {of_b[0], of_b[1]});
    gpu::mma_f16(sums[1], of_a, {of_b[2], of_b[3]});
    if (second_barrier) __syncthreads();
  }
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned j = 0; j < 4; ++j) {
      const unsigned row = row0 + warp / 2 * 16 + lane / 4 + j / 2 * 8;
      c[row * unsigned(n) + column0 + warp % 2 * 16 + half * 8 + lane % 4 * 2 + j % 2] = sums[half][j];
    }
  }
}

__global__ void warp_words(float* down, float* up, int* four, long long* wide, unsigned* votes, int* sums) {
  const int lane = int(threadIdx.x);
  const float x = float(lane);
  down[lane] = __shfl_down_sync(0xffffffffu, x, 3);
  up[lane] = __shfl_up_sync(0xffffffffu, x, 5);
  four[lane] = __shfl_sync(0xffffffffu, lane, 6, 4);
  wide[lane] = __shfl_xor_sync(0xffffffffu, (long long)(lane) << 40 | 7, 9);
  votes[lane] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  votes[32 + lane] = unsigned(__any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 31));
  sums[lane] = __reduce_add_sync(0xffffffffu, lane - 16);
  sums[32 + lane] = __reduce_max_sync(0xffffffffu, lane - 40);
  sums[64 + lane] = int(__reduce_min_sync(0xffffffffu, unsigned(lane + 2)));
  // both halves at once, each with its own mask
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  sums[96 + lane] = __reduce_add_sync(half, lane);
}

__global__ void counts(int* sum, unsigned* largest, unsigned long long* wide, int* claimed, float* last) {
  const int id = int(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(sum, id);
  atomicMax(largest, unsigned(id));
  atomicAdd(wide, 1ull << 33);
  if (atomicCAS(claimed, -1, id) == -1) atomicExch(last, 0.5f);
}

__global__ void places(unsigned* y) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] = block << 16 | thread;
}

/// Exact sums whatever their order: eighths whose products are 64ths.
std::vector<gpu::f16> eighths(size_t count, uint32_t seed) {
  std::vector<gpu::f16> values(count);
  for (gpu::f16& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = gpu::to_f16(float(int(seed >> 24) % 17 - 8) / 8);
  }
  return values;
}

constexpr int m = 64, n = 64, k = 128;

/// How many of the product's values are wrong (or NaN).
template <bool second_barrier>
int wrong_values(const Options& options) {
  const std::vector<gpu::f16> a = eighths(m * k, 1), b = eighths(n * k, 2);
  const Device<gpu::f16> device_a(a), device_b(b);
  const Device<float> device_c(m * n);
  findings_of(options, [&] {
    const gpu::f16 *pa = device_a, *pb = device_b;
    gpu::launch(product<second_barrier>, {.grid = {n / tile, m / tile}, .block = 128}, pa, pb,
                static_cast<float*>(device_c), n, k);
  });
  const std::vector<float> c = device_c.values();
  int wrong = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int l = 0; l < k; ++l) sum += gpu::to_float(a[size_t(i * k + l)]) * gpu::to_float(b[size_t(j * k + l)]);
      wrong += !(c[size_t(i * n + j)] == sum);
    }
  }
  return wrong;
}

}  // namespace

TEST("simt orders: a reduction over warps is right in each") {
  std::vector<float> x(4 * 1000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i % 97);
  const Device<float> from(x), to(4);
  for (const Order order : orders) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      const auto findings = findings_of({.order = order, .seed = seed}, [&] {
        gpu::launch(block_sums<true>, {.grid = 4, .block = 256}, static_cast<const float*>(from), to, 1000);
      });
      CHECK(findings.empty());
      for (size_t block = 0; block < 4; ++block) {
        float sum = 0;
        for (size_t i = 0; i < 1000; ++i) sum += x[block * 1000 + i];
        CHECK_EQUAL(to.values()[block], sum);
      }
    }
  }
}

TEST("simt orders: a reduction that lacks its barrier gives NaN in all but the luckiest") {
  const Device<float> from(std::vector<float>(1000, 1.0f)), to(1);
  int shown = 0;
  for (const Order order : orders) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      findings_of({.order = order, .seed = seed}, [&] {
        gpu::launch(block_sums<false>, {.grid = 1, .block = 256}, static_cast<const float*>(from), to, 1000);
      });
      shown += std::isnan(to.values()[0]);
      if (order == Order::fifo) CHECK(std::isnan(to.values()[0]));
    }
  }
  // LIFO runs the first warp last, which is right by luck; priority has it last in one of eight
  CHECK(shown >= 50);
}

TEST("simt orders: a double-buffered product is right in each") {
  for (const Order order : orders) {
    for (uint64_t seed = 1; seed <= 3; ++seed) CHECK_EQUAL(wrong_values<true>({.order = order, .seed = seed}), 0);
  }
}

TEST("simt orders: a missing second barrier shows with random priorities, whatever the seed") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CHECK(wrong_values<false>({.order = Order::priority, .seed = seed}) > 0);
  }
  CHECK(wrong_values<false>({.order = Order::lifo}) > 0);
}

TEST("simt: shuffles, votes and reductions of a warp") {
  const Device<float> down(32), up(32);
  const Device<int> four(32), sums(128);
  const Device<long long> wide(32);
  const Device<unsigned> votes(64);
  for (const Order order : orders) {
    const auto findings = findings_of({.order = order}, [&] {
      gpu::launch(warp_words, {.grid = 1, .block = 32}, down, up, four, wide, votes, sums);
    });
    CHECK(findings.empty());
    for (int lane = 0; lane < 32; ++lane) {
      const size_t i = size_t(lane);
      CHECK_EQUAL(down.values()[i], float(lane + 3 < 32 ? lane + 3 : lane));
      CHECK_EQUAL(up.values()[i], float(lane >= 5 ? lane - 5 : lane));
      CHECK_EQUAL(four.values()[i], lane / 4 * 4 + 2);
      CHECK_EQUAL(wide.values()[i], (long long)(lane ^ 9) << 40 | 7);
      CHECK_EQUAL(votes.values()[i], 0x49249249u);  // every third bit from bit 0
      CHECK_EQUAL(votes.values()[32 + i], 1u);
      CHECK_EQUAL(sums.values()[i], -16);  // 496 - 32 · 16
      CHECK_EQUAL(sums.values()[32 + i], -9);
      CHECK_EQUAL(sums.values()[64 + i], 2);
      CHECK_EQUAL(sums.values()[96 + i], lane < 16 ? 120 : 376);
    }
  }
}

TEST("simt: atomics over blocks") {
  for (const Order order : orders) {
    const Device<int> sum(std::vector<int>{0}), claimed(std::vector<int>{-1});
    const Device<unsigned> largest(std::vector<unsigned>{0});
    const Device<unsigned long long> wide(std::vector<unsigned long long>{0});
    const Device<float> last(1);
    findings_of({.order = order},
                [&] { gpu::launch(counts, {.grid = 7, .block = 96}, sum, largest, wide, claimed, last); });
    CHECK_EQUAL(sum.values()[0], 672 * 671 / 2);
    CHECK_EQUAL(largest.values()[0], 671u);
    CHECK_EQUAL(wide.values()[0], 672ull << 33);
    CHECK(claimed.values()[0] >= 0);
    CHECK_EQUAL(last.values()[0], 0.5f);
  }
}

TEST("simt orders: every block and thread of three dimensions runs once") {
  for (const Order order : orders) {
    const Device<unsigned> y(2 * 3 * 5 * 4 * 3 * 2);
    findings_of({.order = order, .seed = 9},
                [&] { gpu::launch(places, {.grid = {2, 3, 5}, .block = {4, 3, 2}}, static_cast<unsigned*>(y)); });
    const std::vector<unsigned> found = y.values();
    for (unsigned i = 0; i < found.size(); ++i) CHECK_EQUAL(found[i], i / 24 << 16 | i % 24);
  }
}

TEST("simt: several host threads launch at once") {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        float *from = nullptr, *to = nullptr;
        const std::vector<float> x(1000, float(t));
        float sum = 0;
        const bool fine = cudaMalloc(&from, 4000) == cudaSuccess && cudaMalloc(&to, 4) == cudaSuccess &&
                          cudaMemcpy(from, x.data(), 4000, cudaMemcpyHostToDevice) == cudaSuccess &&
                          gpu::launch(block_sums<true>, {.grid = 1, .block = 256}, from, to, 1000) == cudaSuccess &&
                          cudaMemcpy(&sum, to, 4, cudaMemcpyDeviceToHost) == cudaSuccess;
        wrong += !fine || sum != float(1000 * t);
        cudaFree(from);
        cudaFree(to);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQUAL(wrong.load(), 0);
}
