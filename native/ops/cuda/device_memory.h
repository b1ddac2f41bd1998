// A device's memory with an owner's name on every piece: what core/arena is for the host.
#pragma once

#include <cstddef>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/arena.h"

namespace minigpt4::cuda {

class DeviceMemory {
 public:
  explicit DeviceMemory(int device) : device_(device) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  /// 256-byte aligned, contents undefined. Never null (bytes 0 included). Error ERR_OUT_OF_MEMORY names the owner, what was
  /// asked, what this model holds already, and what the device has free of how much.
  void* take(size_t bytes, std::string_view owner);
  /// Gives back a piece; null is ignored. What the device says to it is not an error of the caller's.
  void give(void* piece) noexcept;
  std::vector<Holding> holdings() const;

 private:
  struct Piece {
    size_t bytes;
    size_t owner;
  };
  int device_;
  mutable std::mutex mutex_;
  std::unordered_map<void*, Piece> pieces_;
  std::vector<Holding> owners_;
};

}  // namespace minigpt4::cuda
