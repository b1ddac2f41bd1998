// Named buffers of activations, allocated once and sized for the largest batch.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace minigpt4 {

/// A piece of backend memory for `count` values, given back when it goes.
template <class Value>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Ops& ops, int64_t count, const char* owner = "activations")
      : ops_(&ops), data_(static_cast<Value*>(ops.allocate(size_t(count) * sizeof(Value), owner))), count_(count) {}
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      reset();
      ops_ = other.ops_;
      data_ = other.data_;
      count_ = other.count_;
      other.data_ = nullptr;
      other.count_ = 0;
    }
    return *this;
  }
  operator Value*() const noexcept { return data_; }
  Value* get() const noexcept { return data_; }
  int64_t count() const noexcept { return count_; }

 private:
  Ops* ops_ = nullptr;
  Value* data_ = nullptr;
  int64_t count_ = 0;
  void reset() noexcept {
    if (data_) ops_->release(data_);
    data_ = nullptr;
  }
};

}  // namespace minigpt4
