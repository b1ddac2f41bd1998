// Named buffers of activations, allocated once and sized for the largest batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

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

/// A buffer that the host alone writes, and remembers: values that it holds already are not sent again.
template <class Value>
class Mirrored {
 public:
  /// All values zero.
  Mirrored(Ops& ops, int64_t count, const char* owner = "activations")
      : ops_(ops), buffer_(ops, count, owner), held_(size_t(count), Value()) {
    ops_.upload(buffer_, held_.data(), held_.size() * sizeof(Value));
  }
  operator const Value*() const noexcept { return buffer_.get(); }

  /// Values [at, at + count) become these.
  void set(int64_t at, const Value* values, size_t count) {
    Value* const held = held_.data() + at;
    size_t first = 0;
    while (first < count && values[first] == held[first]) ++first;
    while (count > first && values[count - 1] == held[count - 1]) --count;
    if (first == count) return;
    ops_.upload(buffer_ + at + first, values + first, (count - first) * sizeof(Value));
    std::copy(values + first, values + count, held + first);
  }
  void set(const std::vector<Value>& values) { set(0, values.data(), values.size()); }

 private:
  Ops& ops_;
  Buffer<Value> buffer_;
  std::vector<Value> held_;
};

}  // namespace minigpt4
