// The emulator's own checks: each defect is planted once and found at its line, in every order of the threads.
#include <stdexcept>

#include "simt/faults.h"
#include "simt_case.h"

using namespace minigpt4;
using namespace simt_case;

namespace {

__global__ void barrier_of_half() {
  if (threadIdx.x < 128) __syncthreads();  // here: barrier of half
}

__global__ void two_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();  // here: one barrier
  } else {
    __syncthreads();  // here: other barrier
  }
}

__global__ void shuffle_of_half(float* y) {
  float x = float(threadIdx.x);
  if (threadIdx.x < 16) x += __shfl_xor_sync(0xffffffffu, x, 1);  // here: shuffle of half
  y[threadIdx.x] = x;
}

__global__ void two_collectives(float* y) {
  float x = float(threadIdx.x);
  if (threadIdx.x % 2) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);  // here: collective a
  } else {
    x += float(__ballot_sync(0xffffffffu, 1));  // here: collective b
  }
  y[threadIdx.x] = x;
}

__global__ void two_masks() {
  // lanes 0 to 15 name all, the others the upper half alone
  __syncwarp(threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u);  // here: two masks
}

__global__ void mask_without_self() {
  __syncwarp(0xfffffffeu);  // here: mask without self
}

__global__ void mask_beyond_block() {
  if (threadIdx.x >= 32) __syncwarp(0xffffffffu);  // here: mask beyond block
}

__global__ void mask_of_ended() {
  if (threadIdx.x == 5) return;
  __syncwarp(0xffffffffu);  // here: mask of ended
}

__global__ void shuffle_from_outside(float* y) {
  if (threadIdx.x >= 16) return;
  y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, int(threadIdx.x) + 1);  // here: shuffle from outside
}

__global__ void waits_crosswise() {
  if (threadIdx.x == 0) {
    __syncthreads();  // here: crosswise barrier
    __syncwarp(0xffffffffu);
  } else {
    __syncwarp(0xffffffffu);  // here: crosswise warp
    __syncthreads();
  }
}

__global__ void takes(int count) {
  gpu::DynamicShared shared;
  shared.take<float>(count)[threadIdx.x] = 0;  // here: takes
}

__global__ void takes_differently() {
  gpu::DynamicShared shared;
  const int count = threadIdx.x < 32 ? 64 : 32;
  shared.take<float>(count)[threadIdx.x % 32] = 0;  // here: takes differently
}

__global__ void static_array() {
  GPU_SHARED(float, array, [1024]);  // here: static array
  array[threadIdx.x] = 0;
}

__global__ void large_static_array() {
  GPU_SHARED(float, array, [12289]);  // here: large static array
  array[threadIdx.x] = 0;
}

__global__ void small_static_array() {
  GPU_SHARED(float, array, [512]);  // here: small static array
  array[threadIdx.x] = 0;
}

__global__ void writes_behind(int at) {
  GPU_SHARED(float, array, [64]);  // here: writes behind
  if (threadIdx.x == 0) array[at] = 1;
  __syncthreads();
}

__global__ void writes_behind_part(int at) {
  gpu::DynamicShared shared;
  float* a = shared.take<float>(32);  // here: writes behind part
  float* b = shared.take<float>(32);
  b[threadIdx.x] = 2;
  if (threadIdx.x == 0) a[at] = 1;
}

__global__ void copies(const float* x, int from, int to, bool waits) {
  GPU_SHARED(float, array, [64]);
  if (threadIdx.x == 0) gpu::cp_async16(array + to, x + from);  // here: copies
  gpu::cp_commit();
  if (waits) gpu::cp_wait<0>();
}

__global__ void never_commits(const float* x) {
  GPU_SHARED(float, array, [64]);
  gpu::cp_async16(array, x);  // here: never commits
  gpu::cp_wait<0>();
}

__global__ void waits_too_little(const float* x, float* y, bool enough) {
  GPU_SHARED(float, array, [8]);
  for (int i = 0; i < 2; ++i) {
    gpu::cp_async16(array + 4 * i, x + 4 * i);
    gpu::cp_commit();
  }
  enough ? gpu::cp_wait<0>() : gpu::cp_wait<1>();
  for (int i = 0; i < 8; ++i) y[i] = array[i];
  gpu::cp_wait<0>();
}

__global__ void copies_zeros(float* y) {
  GPU_SHARED(float, array, [4]);
  gpu::cp_async16(array, nullptr, false);
  gpu::cp_commit();
  gpu::cp_wait<0>();
  for (int i = 0; i < 4; ++i) y[i] = array[i];
}

__global__ void loads(const float* x, float* y, int at) {
  *y = float(gpu::ldg128(x + at).x);  // here: loads
}

__global__ void loads_matrix(int offset) {
  GPU_SHARED(uint16_t, tile, [32][8]);
  uint32_t r[4];
  gpu::ldmatrix_x4(r, &tile[0][0] + 8 * threadIdx.x + offset);  // here: loads matrix
}

__global__ void adds_misaligned(char* y) {
  atomicAdd(reinterpret_cast<int*>(y + 2), 1);  // here: adds misaligned
}

__global__ void throws() {
  if (threadIdx.x == 3) throw std::runtime_error("three");
}

__global__ void stale(float* y, bool write) {
  GPU_SHARED(float, array, [32]);
  if (write && blockIdx.x == 0) array[threadIdx.x] = 1;
  y[32 * blockIdx.x + threadIdx.x] = array[threadIdx.x];
}

/// Launches in every order and wants the finding in each.
template <class Body>
void finds(FindingKind kind, const char* where, const std::string& words, Body&& launch) {
  const int line = *where ? line_of(__FILE__, where) : 0;
  if (*where) CHECK(line > 0);
  for (const Order order : orders) {
    const std::vector<Finding> findings = findings_of({.order = order, .seed = 3}, launch);
    CHECK_EQUAL(missing(findings, kind, *where ? __FILE__ : "", line, words), "");
  }
}
std::string at(const char* where) { return __FILE__ ":" + std::to_string(line_of(__FILE__, where)); }

}  // namespace

TEST("simt checks: a barrier that half of the threads come to") {
  finds(FindingKind::barrier, "barrier of half",
        "128 threads wait in __syncthreads at " + at("barrier of half") + ", 128 of 256 ended",
        [] { gpu::launch(barrier_of_half, {.grid = 1, .block = 256}); });
}

TEST("simt checks: two barriers at once") {
  for (const Order order : orders) {
    const std::vector<Finding> findings =
        findings_of({.order = order}, [] { gpu::launch(two_barriers, {.grid = 1, .block = 64}); });
    CHECK_EQUAL(findings.size(), 1u);
    const std::string one = at("one barrier"), other = at("other barrier");
    CHECK(findings[0].kind == FindingKind::barrier);
    CHECK(findings[0].text.find(one) != std::string::npos);
    CHECK(findings[0].text.find(other) != std::string::npos);
  }
}

TEST("simt checks: collectives whose lanes do not come together") {
  const Device<float> y(64);
  float* to = y;
  finds(FindingKind::collective, "shuffle of half", "mask 0xffffffff",
        [&] { gpu::launch(shuffle_of_half, {.grid = 1, .block = 32}, to); });
  for (const Order order : orders) {
    const std::vector<Finding> findings =
        findings_of({.order = order}, [&] { gpu::launch(two_collectives, {.grid = 1, .block = 32}, to); });
    CHECK_EQUAL(findings.size(), 1u);
    CHECK(findings[0].kind == FindingKind::collective);
    for (const char* words : {"__shfl_xor_sync", "__ballot_sync"}) {
      CHECK(findings[0].text.find(words) != std::string::npos);
    }
    for (const char* where : {"collective a", "collective b"}) {
      CHECK(findings[0].text.find(at(where)) != std::string::npos);
    }
  }
  finds(FindingKind::collective, "two masks", "__syncwarp with mask 0x",
        [] { gpu::launch(two_masks, {.grid = 1, .block = 32}); });
  finds(FindingKind::collective, "mask without self", "by lane 0, which the mask leaves out",
        [] { gpu::launch(mask_without_self, {.grid = 1, .block = 32}); });
  finds(FindingKind::collective, "mask beyond block", "names lane 16, which the block does not have",
        [] { gpu::launch(mask_beyond_block, {.grid = 1, .block = 48}); });
  finds(FindingKind::collective, "mask of ended", "lane 5",
        [] { gpu::launch(mask_of_ended, {.grid = 1, .block = 32}); });
  finds(FindingKind::shuffle, "shuffle from outside", "lane 15 asks for the value of lane 16",
        [&] { gpu::launch(shuffle_from_outside, {.grid = 1, .block = 32}, to); });
}

TEST("simt checks: a deadlock names where all threads stand") {
  for (const char* where : {"crosswise barrier", "crosswise warp"}) {
    finds(FindingKind::deadlock, "crosswise warp", at(where),
          [] { gpu::launch(waits_crosswise, {.grid = 1, .block = 32}); });
  }
}

TEST("simt checks: dynamic shared memory") {
  finds(FindingKind::shared_memory, "takes", "up to byte 512 is taken, but the launch asked for 256",
        [] { gpu::launch(takes, {.grid = 1, .block = 64, .shared = 256}, 128); });
  finds(FindingKind::shared_memory, "takes differently", "the same parts in the same order",
        [] { gpu::launch(takes_differently, {.grid = 1, .block = 64, .shared = 512}); });
  // exactly what was asked for is right
  CHECK_EQUAL(findings_of({}, [] { gpu::launch(takes, {.grid = 1, .block = 64, .shared = 512}, 128); }).size(), 0u);
}

TEST("simt checks: static shared memory") {
  finds(FindingKind::shared_memory, "large static array", "49168 bytes",
        [] { gpu::launch(large_static_array, {.grid = 1, .block = 32}); });
  const size_t all = 227 * 1024;
  // 4 KB are static: together 4 KB too much
  finds(FindingKind::shared_memory, "static array", "the device has 232448 a block",
        [=] { CHECK(gpu::launch(static_array, {.grid = 1, .block = 32, .shared = all}) == cudaSuccess); });
  CHECK_EQUAL(
      findings_of({}, [=] { gpu::launch(static_array, {.grid = 1, .block = 32, .shared = all - 4096}); }).size(), 0u);
  // another kernel, which never asked for more than 48 KB of dynamic memory, has no more of both
  const size_t rest = 48 * 1024 - 2048;
  finds(FindingKind::shared_memory, "small static array", "the device has 49152 a block for kernels that did not ask",
        [=] { gpu::launch(small_static_array, {.grid = 1, .block = 32, .shared = rest + 16}); });
  CHECK_EQUAL(
      findings_of({}, [=] { gpu::launch(small_static_array, {.grid = 1, .block = 32, .shared = rest}); }).size(), 0u);
}

TEST("simt checks: red zones") {
  finds(FindingKind::shared_memory, "writes behind", "array (256 bytes of shared memory) was written 1 bytes behind",
        [] { gpu::launch(writes_behind, {.grid = 1, .block = 32}, 64); });
  finds(FindingKind::shared_memory, "writes behind", "1 bytes before its begin",
        [] { gpu::launch(writes_behind, {.grid = 1, .block = 32}, -1); });
  finds(FindingKind::shared_memory, "writes behind part", "the dynamic part at byte 0",
        [] { gpu::launch(writes_behind_part, {.grid = 1, .block = 32, .shared = 256}, 32); });
  CHECK_EQUAL(findings_of({}, [] { gpu::launch(writes_behind, {.grid = 1, .block = 32}, 63); }).size(), 0u);
}

TEST("simt checks: cp.async") {
  const Device<float> x(std::vector<float>(64, 1.0f)), y(8);
  float *from = x, *to = y;
  const auto run = [&](int source, int target, bool waits) {
    gpu::launch(copies, {.grid = 1, .block = 32}, from, source, target, waits);
  };
  finds(FindingKind::copy, "copies", "1 cp.async unfinished", [&] { run(0, 0, false); });
  finds(FindingKind::misaligned, "copies", "to an address", [&] { run(0, 1, true); });
  finds(FindingKind::misaligned, "copies", "from an address", [&] { run(1, 0, true); });
  finds(FindingKind::out_of_bounds, "copies", "lies 256 bytes behind the begin of the nearest, which has 256",
        [&] { run(64, 0, true); });
  finds(FindingKind::out_of_bounds, "copies", "not inside of one array of shared memory", [&] { run(0, 64, true); });
  finds(FindingKind::copy, "never commits", "unfinished",
        [&] { gpu::launch(never_commits, {.grid = 1, .block = 1}, from); });
  CHECK_EQUAL(findings_of({}, [&] { run(60, 60, true); }).size(), 0u);

  for (const bool enough : {true, false}) {
    findings_of({}, [&] { gpu::launch(waits_too_little, {.grid = 1, .block = 1}, from, to, enough); });
    const std::vector<float> values = y.values();
    for (int i = 0; i < 4; ++i) CHECK_EQUAL(values[i], 1.0f);
    for (int i = 4; i < 8; ++i) CHECK(enough ? values[i] == 1.0f : std::isnan(values[i]));
  }
  gpu::launch(copies_zeros, {.grid = 1, .block = 1}, to);
  for (int i = 0; i < 4; ++i) CHECK_EQUAL(y.values()[i], 0.0f);
}

TEST("simt checks: misaligned accesses") {
  const Device<float> x(std::vector<float>(64, 1.0f)), y(8);
  float *from = x, *to = y;
  finds(FindingKind::misaligned, "loads", "16 bytes from an address that is 8 more than a multiple",
        [&] { gpu::launch(loads, {.grid = 1, .block = 1}, from, to, 2); });
  finds(FindingKind::misaligned, "loads matrix", "no multiple of 16",
        [] { gpu::launch(loads_matrix, {.grid = 1, .block = 32}, 4); });
  finds(FindingKind::out_of_bounds, "loads matrix", "not inside of one array",
        [] { gpu::launch(loads_matrix, {.grid = 1, .block = 32}, 8); });
  finds(FindingKind::misaligned, "adds misaligned", "4 bytes",
        [&] { gpu::launch(adds_misaligned, {.grid = 1, .block = 1}, reinterpret_cast<char*>(to)); });
}

TEST("simt checks: an exception, and launches go on afterwards") {
  finds(FindingKind::exception, "", "three", [] { gpu::launch(throws, {.grid = 2, .block = 64}); });
  const Device<float> y(64);
  CHECK(gpu::launch(stale, {.grid = 2, .block = 32}, static_cast<float*>(y), true) == cudaSuccess);
}

TEST("simt checks: what was not written is NaN, in shared memory for every block anew") {
  const Device<float> y(64);
  for (const float value : y.values()) CHECK(std::isnan(value));
  findings_of({}, [&] { gpu::launch(stale, {.grid = 2, .block = 32}, static_cast<float*>(y), true); });
  const std::vector<float> values = y.values();
  for (int i = 0; i < 64; ++i) CHECK(i < 32 ? values[i] == 1.0f : std::isnan(values[i]));
}

TEST("simt checks: a finding fails its launch and no later one") {
  simt::set_options({});
  CHECK_EQUAL(gpu::launch(barrier_of_half, {.grid = 1, .block = 256}), cudaErrorLaunchFailure);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorLaunchFailure);
  CHECK_EQUAL(cudaGetLastError(), cudaSuccess);
  CHECK_EQUAL(gpu::launch(barrier_of_half, {.grid = 1, .block = 128}), cudaSuccess);
  const std::vector<Finding> findings = simt::take_findings();
  CHECK_EQUAL(findings.size(), 1u);
  CHECK(findings[0].kernel.find("barrier_of_half") != std::string::npos);
  CHECK(simt::take_findings().empty());
}
