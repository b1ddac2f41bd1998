// Pieces come from cudaMalloc; what is here is the bookkeeping of who holds them.
#include "ops/cuda/device_memory.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "ops/cuda/cuda_ops.h"

namespace minigpt4::cuda {

DeviceMemory::~DeviceMemory() {
  cudaSetDevice(device_);
  for (const auto& [memory, piece] : pieces_) cudaFree(memory);
  cudaGetLastError();  // a lost device takes nothing back, and that is nobody's next error
}

void* DeviceMemory::take(size_t bytes, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  check(cudaSetDevice(device_), "choosing the device");
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t held = 0, free = 0, total = 0;
    for (const Holding& holding : owners_) held += holding.bytes;
    cudaMemGetInfo(&free, &total);
    fail(code::out_of_memory, owner, " needs ", bytes, " bytes on device ", device_, ", which has ", free,
         " bytes free of ", total, "; this model holds ", held, " bytes of it already");
  }
  check(status, "taking device memory");
  auto holding = std::find_if(owners_.begin(), owners_.end(), [&](const Holding& each) { return each.owner == owner; });
  if (holding == owners_.end()) {
    owners_.push_back({std::string(owner), 0, 0, 0});
    holding = owners_.end() - 1;
  }
  pieces_.emplace(memory, Piece{bytes, size_t(holding - owners_.begin())});
  holding->bytes += bytes;
  holding->peak = std::max(holding->peak, holding->bytes);
  holding->pieces += 1;
  return memory;
}

void DeviceMemory::give(void* piece) noexcept {
  if (!piece) return;
  const std::lock_guard lock(mutex_);
  const auto found = pieces_.find(piece);
  if (found == pieces_.end()) return;  // not this device's: freeing it would be worse than keeping it
  Holding& holding = owners_[found->second.owner];
  holding.bytes -= found->second.bytes;
  holding.pieces -= 1;
  pieces_.erase(found);
  cudaSetDevice(device_);
  if (cudaFree(piece) != cudaSuccess) cudaGetLastError();
}

std::vector<Holding> DeviceMemory::holdings() const {
  const std::lock_guard lock(mutex_);
  return owners_;
}

}  // namespace minigpt4::cuda
