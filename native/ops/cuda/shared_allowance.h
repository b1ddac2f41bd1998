// A kernel that takes more than 48 KB of dynamic shared memory has to be allowed it first. The allowance is the kernel's, on a
// device, for all threads of the process and all recorded launches: it is raised only, so that no launch takes away what
// another one, of another size, counts on. Included by gpu.h's two sides.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

namespace minigpt4::gpu {

inline cudaError_t allow_shared(const void* kernel, size_t bytes) {
  if (bytes <= 48 * 1024) return cudaSuccess;
  static std::mutex mutex;
  static auto* const allowed = new std::map<std::pair<int, const void*>, size_t>;  // not gone before the last launch
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const std::lock_guard lock(mutex);
  size_t& most = (*allowed)[{device, kernel}];
  if (bytes <= most) return cudaSuccess;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  if (error == cudaSuccess) most = bytes;
  return error;
}

}  // namespace minigpt4::gpu
