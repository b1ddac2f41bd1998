// Every tensor once: its name in the file, its shape, and the place that holds it. Loading and counting walk this list;
// docs/format.md says where each comes from.
#pragma once

#include <cstdint>
#include <string>

#include "models/weights.h"

namespace minigpt4 {

/// Whether a file may lack a tensor.
enum class Presence { required, optional };

class TensorVisitor {
 public:
  virtual ~TensorVisitor() = default;
  /// A weight that is multiplied with: [rows, cols] of any type that can be read.
  virtual void matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Matrix>& slot,
                      Presence presence) = 0;
  /// Values that are used one by one, of a shape in the file's order: {cols}, or {cols, rows}; F32, F16 or BF16 in the file.
  virtual void floats(const std::string& name, const std::vector<uint64_t>& shape, Floats& slot, Presence presence) = 0;
  /// The same of one row of values, which stay in the host's memory.
  virtual void numbers(const std::string& name, int64_t count, std::vector<float>& slot, Presence presence) = 0;
};

/// The layer of a language model's tensor, by its name; -1: of none.
int llama_layer_of(const std::string& name);

void visit_tensors(const VitConfig& config, VitWeights& weights, TensorVisitor& visitor);
void visit_tensors(const QFormerConfig& config, int vit_width, QFormerWeights& weights, TensorVisitor& visitor);
void visit_tensors(const ProjectionConfig& config, Linear& weights, TensorVisitor& visitor);
void visit_tensors(const LlamaConfig& config, LlamaWeights& weights, TensorVisitor& visitor);

}  // namespace minigpt4
