// The emulated CUDA runtime: devices, memory, streams, events, graphs, and the failures that tests of error paths ask
// for.
#include <cstring>
#include <utility>

#include "simt/faults.h"
#include "simt_case.h"

using namespace minigpt4;
using namespace simt_case;

namespace {

__global__ void add(float* y, float value, int count) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) y[i] += value;
}

__global__ void needs_shared(float* y) {
  gpu::DynamicShared shared;
  float* part = shared.take<float>(16 * 1024);
  part[threadIdx.x] = 1;
  y[threadIdx.x] = part[threadIdx.x];
}

template <int warps>
__global__ void __launch_bounds__(32 * warps, warps > 2 ? 2 : 1) bounded(int* y) {
  if (threadIdx.x == 0) *y = int(blockDim.x);
}
__global__ void __launch_bounds__(3) odd_bound(int* y) { *y = 0; }
__global__ void unbounded(int* y) { *y = 0; }
__global__ void __launch_bounds__(1024) wide_bound(int* y) { *y = 0; }

cudaError_t add_on(cudaStream_t stream, float* y, float value, int count = 1) {
  return gpu::launch(add, {.grid = unsigned(count + 31) / 32, .block = 32, .stream = stream}, y, value, count);
}

/// Words for the emulator while it lives.
struct Configured {
  explicit Configured(const char* words) { simt::configure(words); }
  ~Configured() {
    simt::configure("streams=eager,order=fifo");
    simt::set_options({});
    while (cudaGetLastError() != cudaSuccess) {
    }
  }
};

struct Stream {
  Stream() { CHECK_EQUAL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess); }
  ~Stream() { cudaStreamDestroy(stream); }
  operator cudaStream_t() const { return stream; }
  cudaStream_t stream = nullptr;
};
struct Event {
  explicit Event(unsigned flags = cudaEventDefault) {
    CHECK_EQUAL(cudaEventCreateWithFlags(&event, flags), cudaSuccess);
  }
  ~Event() { cudaEventDestroy(event); }
  operator cudaEvent_t() const { return event; }
  cudaEvent_t event = nullptr;
};

}  // namespace

TEST("simt runtime: what the words say of the devices") {
  int count = -1, value = -1;
  cudaDeviceProp properties;
  {
    const Configured words("devices=3,memory=1000000,shared=101376,processors=7,capability=8.6");
    CHECK_EQUAL(cudaGetDeviceCount(&count), cudaSuccess);
    CHECK_EQUAL(count, 3);
    CHECK_EQUAL(cudaGetDeviceProperties(&properties, 2), cudaSuccess);
    CHECK_EQUAL(properties.totalGlobalMem, 1000000u);
    CHECK_EQUAL(properties.multiProcessorCount, 7);
    CHECK_EQUAL(properties.major * 10 + properties.minor, 86);
    CHECK_EQUAL(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 1), cudaSuccess);
    CHECK_EQUAL(value, 101376);
    CHECK_EQUAL(cudaSetDevice(3), cudaErrorInvalidDevice);
    CHECK_EQUAL(cudaGetDeviceProperties(&properties, -1), cudaErrorInvalidDevice);
  }
  {
    const Configured words("devices=0");
    CHECK_EQUAL(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    CHECK_EQUAL(count, 3);  // untouched, as the real one leaves it
    CHECK_EQUAL(cudaSetDevice(0), cudaErrorNoDevice);
  }
  for (const auto& [words, version] : {std::pair("driver=old", 12020), std::pair("driver=none", 0)}) {
    const Configured configured(words);
    void* memory = nullptr;
    CHECK_EQUAL(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    CHECK_EQUAL(cudaMalloc(&memory, 16), cudaErrorInsufficientDriver);
    CHECK_EQUAL(cudaDriverGetVersion(&value), cudaSuccess);
    CHECK_EQUAL(value, version);
  }
  CHECK_EQUAL(std::string(cudaGetErrorName(cudaErrorInsufficientDriver)), "cudaErrorInsufficientDriver");
}

TEST("simt runtime: unknown words are errors") {
  for (const char* words : {"device=1", "devices=x", "memory=0", "fail=malloc", "fail=free:1", "fail=malloc:0",
                            "driver=new", "order=sideways", "devices=1,,seed=2", "capability=9"}) {
    CHECK_ERROR(code::argument, "emulator", simt::configure(words));
  }
}

TEST("simt runtime: memory of a device runs out, and comes back") {
  // the second one: other tests of this program may hold memory of the first
  const Configured words("devices=2,memory=1000");
  CHECK_EQUAL(cudaSetDevice(1), cudaSuccess);
  void *a = nullptr, *b = nullptr;
  size_t free = 0, total = 0;
  CHECK_EQUAL(cudaMalloc(&a, 600), cudaSuccess);
  CHECK_EQUAL(cudaMalloc(&b, 401), cudaErrorMemoryAllocation);
  CHECK_EQUAL(cudaMemGetInfo(&free, &total), cudaSuccess);
  CHECK_EQUAL(free, 400u);
  CHECK_EQUAL(total, 1000u);
  CHECK_EQUAL(reinterpret_cast<uintptr_t>(a) % 256, 0u);
  CHECK_EQUAL(cudaFree(a), cudaSuccess);
  CHECK_EQUAL(cudaMalloc(&b, 1000), cudaSuccess);
  CHECK_EQUAL(cudaFree(b), cudaSuccess);
  CHECK_EQUAL(cudaSetDevice(0), cudaSuccess);
}

TEST("simt runtime: copies that go wrong are told") {
  const Device<float> y(4);
  float host[8] = {};
  float* device = y;
  const auto told = [](const char* words, auto&& call) {
    cudaError_t error = cudaSuccess;
    const auto findings = findings_of({}, [&] { error = call(); });
    CHECK_EQUAL(error, cudaErrorInvalidValue);
    CHECK_EQUAL(missing(findings, FindingKind::host, "", 0, words), "");
  };
  told("4 bytes beyond a device allocation of 16",
       [&] { return cudaMemcpy(device, host, 20, cudaMemcpyHostToDevice); });
  told("not in device memory", [&] { return cudaMemcpy(host, host + 4, 16, cudaMemcpyDeviceToHost); });
  told("has an address of device memory", [&] { return cudaMemcpy(device, host, 16, cudaMemcpyDeviceToHost); });
  told("no device allocation begins", [&] { return cudaFree(device + 1); });
  told("beyond a device allocation", [&] { return cudaMemset(device + 1, 0, 16); });
  told("no pinned memory begins", [&] { return cudaFreeHost(host); });
  while (cudaGetLastError() != cudaSuccess) {
  }
}

TEST("simt runtime: a write around an allocation is found when it is freed") {
  for (const int at : {4, -1}) {
    const auto findings = findings_of({}, [&] {
      const Device<float> y(4);
      static_cast<float*>(y)[at] = 1;  // as a kernel's stray write
    });
    CHECK_EQUAL(missing(findings, FindingKind::out_of_bounds, "", 0,
                        at < 0 ? "bytes before its begin" : "bytes behind its end"),
                "");
  }
}

TEST("simt runtime: launches that no device takes") {
  const Device<float> y(1024);
  float* to = y;
  const auto run = [&](dim3 grid, dim3 block) { return gpu::launch(add, {.grid = grid, .block = block}, to, 0.0f, 0); };
  CHECK_EQUAL(run(1, 1025), cudaErrorInvalidConfiguration);
  CHECK_EQUAL(run(1, {32, 32, 2}), cudaErrorInvalidConfiguration);
  CHECK_EQUAL(run(1, {1, 1, 65}), cudaErrorInvalidConfiguration);
  CHECK_EQUAL(run(0, 32), cudaErrorInvalidConfiguration);
  CHECK_EQUAL(run({1, 65536, 1}, 32), cudaErrorInvalidConfiguration);
  CHECK_EQUAL(run({1, 2, 1}, 1024), cudaSuccess);
  CHECK_EQUAL(gpu::launch(needs_shared, {.grid = 1, .block = 32, .shared = 227 * 1024 + 1}, to), cudaErrorInvalidValue);
  CHECK_EQUAL(gpu::launch(needs_shared, {.grid = 1, .block = 32, .shared = 64 * 1024}, to), cudaSuccess);
  CHECK_EQUAL(y.values()[31], 1.0f);
  {
    const Configured words("shared=60000");
    CHECK_EQUAL(gpu::launch(needs_shared, {.grid = 1, .block = 32, .shared = 64 * 1024}, to), cudaErrorInvalidValue);
  }
  {
    const Configured words("devices=2");
    const Stream stream;
    CHECK_EQUAL(cudaSetDevice(1), cudaSuccess);
    CHECK_EQUAL(add_on(stream, to, 1), cudaErrorInvalidResourceHandle);  // a stream of device 0
    CHECK_EQUAL(cudaSetDevice(0), cudaSuccess);
  }
}

TEST("simt runtime: what a recorded launch may take of shared memory, a later one leaves it") {
  const Device<float> y(32);
  float* to = y;
  const Stream stream;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  CHECK_EQUAL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  for (const size_t bytes : {100 * 1024, 64 * 1024}) {
    CHECK_EQUAL(gpu::launch(needs_shared, {.grid = 1, .block = 32, .shared = bytes, .stream = stream}, to),
                cudaSuccess);
  }
  CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  CHECK_EQUAL(cudaGraphInstantiate(&executable, graph), cudaSuccess);
  CHECK_EQUAL(cudaGraphLaunch(executable, stream), cudaSuccess);
  CHECK_EQUAL(cudaStreamSynchronize(stream), cudaSuccess);
  CHECK_EQUAL(y.values()[31], 1.0f);
  // who takes it away is told at the next launch of the record
  const auto* kernel = reinterpret_cast<const void*>(needs_shared);
  CHECK_EQUAL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024), cudaSuccess);
  CHECK_EQUAL(cudaGraphLaunch(executable, stream), cudaErrorInvalidValue);
  CHECK_EQUAL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024), cudaSuccess);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorInvalidValue);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

#ifdef SIMT_LAUNCH_BOUNDS
TEST("simt runtime: blocks larger than a kernel's launch bounds") {
  const Device<int> y(1);
  int* to = y;
  const auto run = [&](auto kernel, dim3 block) { return gpu::launch(kernel, {.grid = 1, .block = block}, to); };
  CHECK_EQUAL(run(bounded<2>, 64), cudaSuccess);
  CHECK_EQUAL(run(bounded<2>, 65), cudaErrorLaunchOutOfResources);
  CHECK_EQUAL(run(bounded<2>, {33, 2, 1}), cudaErrorLaunchOutOfResources);
  CHECK_EQUAL(y.values()[0], 64);  // the others did not run
  CHECK_EQUAL(run(bounded<4>, 128), cudaSuccess);
  CHECK_EQUAL(run(bounded<4>, 129), cudaErrorLaunchOutOfResources);
  CHECK_EQUAL(run(odd_bound, 3), cudaSuccess);
  CHECK_EQUAL(run(odd_bound, 4), cudaErrorLaunchOutOfResources);
  CHECK_EQUAL(run(wide_bound, 1024), cudaSuccess);
  // says nothing, and stands behind one that does
  CHECK_EQUAL(run(unbounded, 1024), cudaSuccess);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorLaunchOutOfResources);
}
#endif

TEST("simt runtime: the n-th call fails, once") {
  const Device<float> y(std::vector<float>{0});
  float* to = y;
  float host = 0;
  {
    const Configured words("fail=malloc:2,fail=host:1");
    void *a = nullptr, *b = nullptr, *c = nullptr;
    CHECK_EQUAL(cudaMalloc(&a, 16), cudaSuccess);
    CHECK_EQUAL(cudaMalloc(&b, 16), cudaErrorMemoryAllocation);
    CHECK_EQUAL(cudaMalloc(&b, 16), cudaSuccess);
    CHECK_EQUAL(cudaMallocHost(&c, 16), cudaErrorMemoryAllocation);
    cudaFree(a);
    cudaFree(b);
  }
  {
    const Configured words("fail=memcpy:2");
    CHECK_EQUAL(cudaMemcpy(&host, to, 4, cudaMemcpyDeviceToHost), cudaSuccess);
    CHECK_EQUAL(cudaMemcpy(&host, to, 4, cudaMemcpyDeviceToHost), cudaErrorUnknown);
    CHECK_EQUAL(cudaMemcpy(&host, to, 4, cudaMemcpyDeviceToHost), cudaSuccess);
  }
  {
    const Configured words("fail=launch:2");
    CHECK_EQUAL(add_on(nullptr, to, 1), cudaSuccess);
    CHECK_EQUAL(add_on(nullptr, to, 1), cudaErrorLaunchFailure);
    CHECK_EQUAL(add_on(nullptr, to, 1), cudaSuccess);
    CHECK_EQUAL(y.values()[0], 2.0f);
  }
}

TEST("simt runtime: a lost device fails every call from then on") {
  float* memory = nullptr;
  size_t before = 0, whole = 0;
  CHECK_EQUAL(cudaMemGetInfo(&before, &whole), cudaSuccess);
  CHECK_EQUAL(cudaMalloc(&memory, 64), cudaSuccess);
  CHECK_EQUAL(cudaMemset(memory, 0, 64), cudaSuccess);
  {
    const Configured words("fail=lost:3");
    cudaStream_t stream = nullptr;
    CHECK_EQUAL(add_on(nullptr, memory, 1), cudaSuccess);
    CHECK_EQUAL(cudaDeviceSynchronize(), cudaSuccess);
    CHECK_EQUAL(add_on(nullptr, memory, 1), cudaErrorDevicesUnavailable);
    CHECK_EQUAL(cudaDeviceSynchronize(), cudaErrorDevicesUnavailable);
    CHECK_EQUAL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaErrorDevicesUnavailable);
    CHECK_EQUAL(cudaMemset(memory, 0, 4), cudaErrorDevicesUnavailable);
    CHECK_EQUAL(cudaGetLastError(), cudaErrorDevicesUnavailable);
    CHECK_EQUAL(cudaGetLastError(), cudaErrorDevicesUnavailable);
    CHECK_EQUAL(cudaFree(memory), cudaErrorDevicesUnavailable);  // and yet the memory is back
    simt::configure("");
    size_t free = 0, total = 0;
    CHECK_EQUAL(cudaMemGetInfo(&free, &total), cudaSuccess);
    CHECK_EQUAL(free, before);
    CHECK_EQUAL(total, whole);
  }
}

TEST("simt graphs: a recording runs nothing, its replays do, with the arguments of the recording") {
  const Stream stream, side;
  const Event fork(cudaEventDisableTiming), join(cudaEventDisableTiming);
  const Device<float> y(std::vector<float>{0, 0});
  float* to = y;
  float* host = nullptr;
  CHECK_EQUAL(cudaMallocHost(&host, 8), cudaSuccess);
  host[0] = 5;
  float value = 1;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CHECK_EQUAL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  CHECK_EQUAL(cudaStreamIsCapturing(stream, &status), cudaSuccess);
  CHECK_EQUAL(status, cudaStreamCaptureStatusActive);
  CHECK_EQUAL(cudaMemcpyAsync(to, host, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  CHECK_EQUAL(add_on(stream, to, value), cudaSuccess);
  CHECK_EQUAL(cudaEventRecord(fork, stream), cudaSuccess);
  CHECK_EQUAL(cudaStreamWaitEvent(side, fork), cudaSuccess);
  CHECK_EQUAL(add_on(side, to + 1, value), cudaSuccess);
  CHECK_EQUAL(cudaEventRecord(join, side), cudaSuccess);
  CHECK_EQUAL(cudaStreamWaitEvent(stream, join), cudaSuccess);
  value = 100;
  CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  CHECK_EQUAL(y.values()[0], 0.0f);
  size_t nodes = 0;
  CHECK_EQUAL(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  CHECK_EQUAL(nodes, 3u);
  CHECK_EQUAL(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  CHECK_EQUAL(cudaGraphDestroy(graph), cudaSuccess);
  for (int i = 1; i <= 3; ++i) {
    host[0] = float(10 * i);  // read when the graph runs, as on the device
    CHECK_EQUAL(cudaGraphLaunch(executable, stream), cudaSuccess);
    CHECK_EQUAL(cudaStreamSynchronize(stream), cudaSuccess);
    CHECK_EQUAL(y.values()[0], float(10 * i + 1));
    CHECK_EQUAL(y.values()[1], float(i));
  }
  {
    const Configured words("fail=launch:2");
    CHECK_EQUAL(cudaGraphLaunch(executable, stream), cudaErrorLaunchFailure);
  }
  CHECK_EQUAL(cudaGraphExecDestroy(executable), cudaSuccess);
  CHECK_EQUAL(cudaFreeHost(host), cudaSuccess);
}

TEST("simt graphs: what a recording forbids breaks it") {
  const Stream stream, other;
  const Event event;
  const Device<float> y(std::vector<float>{0});
  float* to = y;
  float host = 0;
  const auto broken = [&](cudaError_t expected, cudaError_t at_end, auto&& call) {
    cudaGraph_t graph = nullptr;
    CHECK_EQUAL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    CHECK_EQUAL(add_on(stream, to, 1), cudaSuccess);
    CHECK_EQUAL(call(), expected);
    CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), at_end);
    CHECK(graph == nullptr);
  };
  const cudaError_t unsupported = cudaErrorStreamCaptureUnsupported, invalidated = cudaErrorStreamCaptureInvalidated;
  void* memory = nullptr;
  broken(unsupported, invalidated, [&] { return cudaStreamSynchronize(stream); });
  broken(unsupported, invalidated, [&] { return cudaStreamQuery(stream); });
  broken(unsupported, invalidated, [&] { return cudaDeviceSynchronize(); });
  broken(unsupported, invalidated, [&] { return cudaMalloc(&memory, 16); });
  broken(unsupported, invalidated, [&] { return cudaFree(to); });
  broken(unsupported, invalidated, [&] { return cudaMallocHost(&memory, 16); });
  broken(unsupported, invalidated, [&] { return cudaMemcpy(&host, to, 4, cudaMemcpyDeviceToHost); });
  broken(cudaSuccess, cudaErrorStreamCaptureUnjoined, [&] {
    CHECK_EQUAL(cudaEventRecord(event, stream), cudaSuccess);
    CHECK_EQUAL(cudaStreamWaitEvent(other, event), cudaSuccess);
    return add_on(other, to, 1);
  });
  // nothing is left of it
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
  CHECK_EQUAL(cudaStreamIsCapturing(other, &status), cudaSuccess);
  CHECK_EQUAL(status, cudaStreamCaptureStatusNone);
  CHECK_EQUAL(add_on(stream, to, 1), cudaSuccess);
  CHECK_EQUAL(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), unsupported);
  while (cudaGetLastError() != cudaSuccess) {
  }
}

TEST("simt streams: lazy ones run when waited for, and events order them") {
  float* host = nullptr;
  CHECK_EQUAL(cudaMallocHost(&host, 4), cudaSuccess);
  int overtaken = 0;
  for (int seed = 1; seed <= 20; ++seed) {
    const Configured words(("streams=lazy,seed=" + std::to_string(seed)).c_str());
    const Stream first, second;
    const Event event(cudaEventDisableTiming);
    for (const bool ordered : {true, false}) {
      const Device<float> y(std::vector<float>{0});
      float* to = y;
      CHECK_EQUAL(cudaMemsetAsync(to, 0, 4, first), cudaSuccess);
      for (int i = 0; i < 3; ++i) CHECK_EQUAL(add_on(first, to, 1), cudaSuccess);
      CHECK_EQUAL(cudaEventRecord(event, first), cudaSuccess);
      CHECK_EQUAL(cudaEventQuery(event), cudaErrorNotReady);
      if (ordered) CHECK_EQUAL(cudaStreamWaitEvent(second, event), cudaSuccess);
      CHECK_EQUAL(cudaMemcpyAsync(host, to, 4, cudaMemcpyDeviceToHost, second), cudaSuccess);
      CHECK_EQUAL(cudaStreamSynchronize(second), cudaSuccess);
      if (ordered) {
        CHECK_EQUAL(host[0], 3.0f);
      } else {
        overtaken += host[0] != 3.0f;
      }
      CHECK_EQUAL(cudaDeviceSynchronize(), cudaSuccess);
    }
  }
  CHECK(overtaken >= 10);  // a missing wait shows in most seeds
  CHECK_EQUAL(cudaFreeHost(host), cudaSuccess);
}

TEST("simt streams: a lazy launch fails where it is waited for, once") {
  const Configured words("streams=lazy,fail=launch:1");
  const Stream stream;
  const Device<float> y(std::vector<float>{0});
  CHECK_EQUAL(add_on(stream, y, 1), cudaSuccess);
  CHECK_EQUAL(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  CHECK_EQUAL(cudaStreamSynchronize(stream), cudaSuccess);
}

TEST("simt streams: pageable memory is read before a copy returns, pinned memory when the copy runs") {
  const Configured words("streams=lazy");
  const Stream stream;
  const Device<float> y(2);
  float* to = y;
  float* pinned = nullptr;
  CHECK_EQUAL(cudaMallocHost(&pinned, 4), cudaSuccess);
  float pageable = 1;
  *pinned = 1;
  CHECK_EQUAL(cudaMemcpyAsync(to, &pageable, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  CHECK_EQUAL(cudaMemcpyAsync(to + 1, pinned, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  pageable = *pinned = 2;
  CHECK_EQUAL(cudaStreamSynchronize(stream), cudaSuccess);
  CHECK_EQUAL(y.values()[0], 1.0f);
  CHECK_EQUAL(y.values()[1], 2.0f);
  CHECK_EQUAL(cudaFreeHost(pinned), cudaSuccess);
}

TEST("simt events: times pass, and events without them refuse") {
  const Stream stream;
  const Event start, end, plain(cudaEventDisableTiming);
  const Device<float> y(std::vector<float>(32 * 1000, 0.0f));
  float milliseconds = -1;
  CHECK_EQUAL(cudaEventRecord(start, stream), cudaSuccess);
  CHECK_EQUAL(add_on(stream, y, 1, 32 * 1000), cudaSuccess);
  CHECK_EQUAL(cudaEventRecord(end, stream), cudaSuccess);
  CHECK_EQUAL(cudaEventRecord(plain, stream), cudaSuccess);
  CHECK_EQUAL(cudaEventSynchronize(end), cudaSuccess);
  CHECK_EQUAL(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
  CHECK(milliseconds > 0);
  CHECK_EQUAL(cudaEventElapsedTime(&milliseconds, start, plain), cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}
