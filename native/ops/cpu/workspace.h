// Scratch memory that ops reuse: it grows to the largest an op has asked for and stays.
#pragma once

#include "core/arena.h"

namespace minigpt4::cpu {

class Workspace {
 public:
  explicit Workspace(Arena& arena) : arena_(arena) {}
  ~Workspace() { arena_.give(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// At least `bytes`, 64-byte aligned, contents undefined; what was got before is void. Error ERR_OUT_OF_MEMORY.
  std::byte* get(size_t bytes) {
    if (bytes > bytes_) {
      arena_.give(memory_);
      memory_ = nullptr;
      bytes_ = 0;
      memory_ = arena_.take(bytes, "workspace");
      bytes_ = bytes;
    }
    return static_cast<std::byte*>(memory_);
  }

 private:
  Arena& arena_;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

/// Cuts one piece of workspace into arrays, each on its own cache lines. First without memory to learn the size:
/// the same calls in the same order, then again over Workspace::get(size()).
class Carver {
 public:
  explicit Carver(std::byte* memory = nullptr) : memory_(memory) {}
  template <class Value>
  Value* take(int64_t count) {
    std::byte* at = memory_ ? memory_ + size_ : nullptr;
    size_ += (size_t(count) * sizeof(Value) + 63) / 64 * 64;
    return reinterpret_cast<Value*>(at);
  }
  size_t size() const noexcept { return size_; }

 private:
  std::byte* memory_;
  size_t size_ = 0;
};

}  // namespace minigpt4::cpu
