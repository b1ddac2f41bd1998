// Weights without a file: random values, straight into a device's layout.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/scratch.h"
#include "models/tensor_list.h"

namespace minigpt4::bench {

/// A device's memory with `count` floats of [-½, ½) in it.
Buffer<float> random_floats(Ops& ops, int64_t count);
Buffer<int32_t> device_ints(Ops& ops, const std::vector<int32_t>& values);

/// A weight whose rows are random, of a size that keeps activations at theirs; some dozens of rows, over and over, because
/// encoding them is what takes time.
std::unique_ptr<Matrix> random_matrix(Ops& ops, Type type, int64_t rows, int64_t cols);

/// Gives every tensor of a model such values: matrices of one type, norms of 1, everything else random. Optional tensors
/// that are no weight's (biases of a Llama, factors of its frequencies) are left out, as in Vicuna's files.
class RandomWeights final : public TensorVisitor {
 public:
  RandomWeights(Ops& ops, Type type) : ops_(ops), type_(type) {}
  void matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Matrix>& slot,
              Presence presence) override;
  void floats(const std::string& name, const std::vector<uint64_t>& shape, Floats& slot, Presence presence) override;
  void numbers(const std::string&, int64_t, std::vector<float>&, Presence) override {}

  /// Of the matrices: bytes as a file has them, and values.
  double bytes() const { return bytes_; }
  double values() const { return values_; }

 private:
  Ops& ops_;
  Type type_;
  double bytes_ = 0, values_ = 0;
};

}  // namespace minigpt4::bench
