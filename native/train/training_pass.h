// Samples laid end to end for one pass through the language model.
#pragma once

#include <span>
#include <vector>

#include "train/llama_backward.h"
#include "train/training_batch.h"

namespace minigpt4 {

struct TrainingPass {
  LlamaRows rows;
  std::vector<int32_t> ids;         // [T], 0 where a picture stands
  std::vector<int32_t> image_rows;  // [n]: where the pictures' vectors go
  std::vector<int32_t> asked_rows;  // [n]: the same among the rows that gradients are asked for
  std::vector<float> features;      // [n, projection input]

  explicit TrainingPass(std::span<const TrainingSample> samples);
};

/// What a sample must fit into.
struct SampleLimits {
  int vocab = 0, max_rows = 0, context = 0, input = 0;
};
/// Errors: ERR_ARGUMENT with the sample's index, expected and found.
void check_sample(const TrainingSample& sample, size_t index, const SampleLimits& limits);

/// Cuts samples into runs that fit a pass of so many rows and pages: the index after each run's last sample.
std::vector<size_t> cut_into_passes(std::span<const TrainingSample> samples, int max_rows, int max_pages);

}  // namespace minigpt4
