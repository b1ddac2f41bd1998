// Launches: what a device would refuse, and one kernel at a time through the execution.
#include <atomic>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "simt/execution.h"
#include "simt/faults.h"
#include "simt/gpu_simt.h"
#include "simt/launch_bounds.h"
#include "simt/launch_findings.h"
#include "simt/streams.h"
#include "simt/symbol_name.h"

namespace minigpt4::simt {

namespace {

constexpr size_t shared_unasked = 48 * 1024;

struct Kernel {
  std::string name;
  size_t shared_allowed = shared_unasked;  // dynamic
  unsigned threads_allowed = 0;
};
/// What is known about a kernel, by its address; under device_lock().
Kernel& kernel_at(const void* function) {
  static auto* known = new std::map<const void*, Kernel>;
  const auto [at, fresh] = known->try_emplace(function);
  if (fresh) {
    at->second.name = symbol_name(function);
    at->second.threads_allowed = launch_bounds(function);
  }
  return at->second;
}

cudaError_t run_kernel(const KernelCall& call, const dim3& grid, const dim3& block, size_t shared, bool overlapping,
                       const char* file, int line) {
  static std::atomic<uint64_t> launches{0};
  if (const cudaError_t error = next_call(Call::launch); error != cudaSuccess) return error;
  const std::lock_guard held(device_lock());
  const Kernel& kernel = kernel_at(call.kernel);
  if (shared > kernel.shared_allowed) return cudaErrorInvalidValue;  // taken away since the launch was recorded
  const std::string name =
      kernel.name.empty() ? std::string("launched at ") + file + ":" + std::to_string(line) : kernel.name;
  const LaunchInfo launch{++launches, name.c_str(), grid, block, shared, {file, line}, call.kernel, overlapping};
  LaunchFindings here;
  // static and dynamic together; the device has more only for kernels that ask for it
  execution().run(launch, call, kernel.shared_allowed > shared_unasked ? device_shape().shared : shared_unasked);
  if (here.count == 0 || !options().findings_fail) return cudaSuccess;
  for (const std::string& text : here.texts) std::fprintf(stderr, "simt: %s\n", text.c_str());
  return cudaErrorLaunchFailure;
}

}  // namespace

cudaError_t launch_kernel(const KernelCall& call, const dim3& grid, const dim3& block, size_t shared,
                          cudaStream_t stream, bool overlapping, const char* file, int line) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (const cudaError_t error = device_shape().image; error != cudaSuccess) return remember(error);
  // what an older device makes of the attribute is written nowhere: none is to be asked
  if (overlapping && !device_overlaps()) return remember(cudaErrorNotSupported);
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > block_threads_limit || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return remember(cudaErrorInvalidConfiguration);
  }
  {
    const std::lock_guard held(device_lock());
    const Kernel& kernel = kernel_at(call.kernel);
    if (threads > kernel.threads_allowed) {
      std::fprintf(stderr, "simt: %s:%d: %s is launched with %llu threads a block, its __launch_bounds__ are %u\n",
                   file, line, kernel.name.c_str(), static_cast<unsigned long long>(threads), kernel.threads_allowed);
      return remember(cudaErrorLaunchOutOfResources);
    }
    if (shared > kernel.shared_allowed || shared > device_shape().shared) return remember(cudaErrorInvalidValue);
    if (const cudaError_t error = stream_error(stream); error != cudaSuccess) return remember(error);
  }
  // the caller's arguments are gone when a queue or a graph comes to it
  const auto* first = static_cast<const std::byte*>(call.arguments);
  const std::vector<std::byte> arguments(first, first + call.argument_bytes);
  return remember(submit(stream, [call, arguments, grid, block, shared, overlapping, file, line] {
    KernelCall copied = call;
    copied.arguments = arguments.data();
    return run_kernel(copied, grid, block, shared, overlapping, file, line);
  }));
}

}  // namespace minigpt4::simt

using namespace minigpt4::simt;

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (!function) return remember(cudaErrorInvalidDeviceFunction);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || size_t(value) > device_shape().shared) {
    return remember(cudaErrorInvalidValue);
  }
  const std::lock_guard held(device_lock());
  kernel_at(function).shared_allowed = size_t(value);
  return cudaSuccess;
}
