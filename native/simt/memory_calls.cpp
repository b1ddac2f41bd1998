// Device memory, pinned memory, copies: the runtime's calls.
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "simt/device_memory.h"
#include "simt/faults.h"
#include "simt/launch_findings.h"
#include "simt/report.h"
#include "simt/streams.h"

namespace minigpt4::simt {

namespace {

struct PinnedMemory {
  std::mutex lock;
  std::map<const std::byte*, size_t> blocks;
};
PinnedMemory& pinned() {
  static PinnedMemory* made = new PinnedMemory;
  return *made;
}
bool is_pinned(const void* p) {
  const std::lock_guard held(pinned().lock);
  auto next = pinned().blocks.upper_bound(static_cast<const std::byte*>(p));
  if (next == pinned().blocks.begin()) return false;
  --next;
  return static_cast<const std::byte*>(p) < next->first + next->second;
}

/// The host's own misuse of the runtime: told, beside the error that a device would give.
cudaError_t misuse(const std::string& words) {
  LaunchFindings here;
  report(FindingKind::host, nullptr, 0, words);
  if (options().findings_fail) {
    for (const std::string& text : here.texts) std::fprintf(stderr, "simt: %s\n", text.c_str());
  }
  return cudaErrorInvalidValue;
}

/// The allocation that [p, p + bytes) lies in wholly; null and `error` set else.
DeviceAllocation* device_range(const void* p, size_t bytes, const char* call, cudaError_t& error) {
  DeviceAllocation* allocation = find_allocation(p);
  const std::byte* begin = static_cast<const std::byte*>(p);
  if (allocation && bytes <= size_t(allocation->begin + allocation->bytes - begin)) return allocation;
  error = misuse(std::string(call) + " of " + std::to_string(bytes) + " bytes " +
                 (allocation ? "goes " + std::to_string(begin + bytes - allocation->begin - allocation->bytes) +
                                   " bytes beyond a device allocation of " + std::to_string(allocation->bytes)
                             : std::string("at an address that is not in device memory")));
  return nullptr;
}

struct Copy {
  std::byte* to;
  const std::byte* from;
  size_t bytes;
  bool to_device, from_device;
};

cudaError_t run_copy(const Copy& copy, const char* call) {
  if (const cudaError_t error = next_call(Call::copy); error != cudaSuccess) return error;
  cudaError_t error = cudaSuccess;
  DeviceAllocation* read = copy.from_device ? device_range(copy.from, copy.bytes, call, error) : nullptr;
  if (error != cudaSuccess) return error;
  DeviceAllocation* written = copy.to_device ? device_range(copy.to, copy.bytes, call, error) : nullptr;
  if (error != cudaSuccess) return error;
  if (read && events.on_device_read) events.on_device_read(*read, copy.from, copy.bytes);
  std::memmove(copy.to, copy.from, copy.bytes);
  if (written && events.on_device_written) events.on_device_written(*written, copy.to, copy.bytes);
  return cudaSuccess;
}

/// Sorts out the kind and looks at both ends.
cudaError_t make_copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, const char* call, Copy& copy) {
  const bool to_is_device = touches_device_memory(to, bytes), from_is_device = touches_device_memory(from, bytes);
  copy = {static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, to_is_device, from_is_device};
  if (kind == cudaMemcpyDefault) return cudaSuccess;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  copy.to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  copy.from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_is_device && !copy.to_device)
    return misuse(std::string(call) + " to the host has an address of device memory");
  if (from_is_device && !copy.from_device) {
    return misuse(std::string(call) + " from the host has an address of device memory");
  }
  cudaError_t error = cudaSuccess;
  if (copy.to_device && !device_range(to, bytes, call, error)) return error;
  if (copy.from_device && !device_range(from, bytes, call, error)) return error;
  return cudaSuccess;
}

}  // namespace

}  // namespace minigpt4::simt

using namespace minigpt4::simt;

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (!memory) return remember(cudaErrorInvalidValue);
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return remember(error);
  if (const cudaError_t error = next_call(Call::allocate); error != cudaSuccess) return remember(error);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  const size_t total = device_shape().memory, used = device_memory_used(current_device());
  if (used > total || device_memory_taken(bytes) > total - used) return remember(cudaErrorMemoryAllocation);
  DeviceAllocation* allocation = allocate_device_memory(current_device(), bytes);
  if (!allocation) return remember(cudaErrorMemoryAllocation);
  *memory = allocation->begin;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (!memory) return cudaSuccess;
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return remember(error);
  if (const DeviceAllocation* allocation = find_allocation(memory)) drain_device(allocation->device);
  LaunchFindings here;
  if (!free_device_memory(memory)) {
    return remember(misuse("cudaFree of an address at which no device allocation begins"));
  }
  if (options().findings_fail) {
    for (const std::string& text : here.texts) std::fprintf(stderr, "simt: %s\n", text.c_str());
  }
  // the memory is free also when the device is lost: nobody else would do it
  return remember(device_error());
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  if (!memory) return remember(cudaErrorInvalidValue);
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return remember(error);
  if (const cudaError_t error = next_call(Call::allocate_host); error != cudaSuccess) return remember(error);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  void* made = ::operator new(bytes, std::align_val_t(4096), std::nothrow);
  if (!made) return remember(cudaErrorMemoryAllocation);
  const std::lock_guard held(pinned().lock);
  pinned().blocks.emplace(static_cast<std::byte*>(made), bytes);
  *memory = made;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  if (!memory) return cudaSuccess;
  {
    const std::lock_guard held(device_lock());
    for (int device = 0; device < device_shape().devices; ++device) drain_device(device);
  }
  {
    const std::lock_guard held(pinned().lock);
    if (pinned().blocks.erase(static_cast<std::byte*>(memory)) == 0) {
      return remember(misuse("cudaFreeHost of an address at which no pinned memory begins"));
    }
  }
  ::operator delete(memory, std::align_val_t(4096));
  return remember(device_error());
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (!free || !total) return remember(cudaErrorInvalidValue);
  *total = device_shape().memory;
  const size_t used = device_memory_used(current_device());
  *free = used < *total ? *total - used : 0;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (bytes == 0) return cudaSuccess;
  const std::lock_guard held(device_lock());
  if (const cudaError_t error = stream_error(stream); error != cudaSuccess) return remember(error);
  Copy copy;
  if (const cudaError_t error = make_copy(to, from, bytes, kind, "cudaMemcpyAsync", copy); error != cudaSuccess) {
    return remember(error);
  }
  const bool capturing = is_capturing(stream);
  if (!capturing && !copy.from_device && !is_pinned(from)) {
    // pageable memory is read before the call returns
    auto staged = std::make_shared<std::vector<std::byte>>(copy.from, copy.from + bytes);
    copy.from = staged->data();
    return remember(submit(stream, [copy, staged] { return run_copy(copy, "cudaMemcpyAsync"); }));
  }
  const cudaError_t error = submit(stream, [copy] { return run_copy(copy, "cudaMemcpyAsync"); });
  if (error != cudaSuccess || capturing || copy.to_device || is_pinned(to)) return remember(error);
  return remember(drain(stream));  // pageable memory is written before the call returns
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return remember(error);
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error != cudaSuccess ? error : remember(drain(nullptr));
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (bytes == 0) return cudaSuccess;
  const std::lock_guard held(device_lock());
  if (const cudaError_t error = stream_error(stream); error != cudaSuccess) return remember(error);
  cudaError_t error = cudaSuccess;
  if (!device_range(to, bytes, "cudaMemset", error)) return remember(error);
  return remember(submit(stream, [to, value, bytes] {
    if (const cudaError_t failed = next_call(Call::copy); failed != cudaSuccess) return failed;
    cudaError_t outside = cudaSuccess;
    DeviceAllocation* allocation = device_range(to, bytes, "cudaMemset", outside);
    if (!allocation) return outside;
    std::memset(to, value, bytes);
    if (events.on_device_written) events.on_device_written(*allocation, to, bytes);
    return cudaSuccess;
  }));
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return remember(error);
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
