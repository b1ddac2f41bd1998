// What a training pass reads: captions and pictures as rows of ragged sequences, and which of them predict what.
#pragma once

#include <cstdint>
#include <vector>

namespace minigpt4 {

/// One sequence. Row t holds token ids[t], or where ids[t] is -1 the next vector of a picture; targets[t] is the id that
/// the row after t should hold, -1 where nothing is asked of row t.
struct TrainingSample {
  std::vector<int32_t> ids, targets;  // [T]
  std::vector<float> features;        // [rows with id -1, projection input]: what comes before the projection
};

/// Losses of a batch, sums over its targets.
struct BatchLoss {
  double loss = 0;  // Σ -log p, natural logarithm
  int64_t targets = 0;
  struct Sample {
    double loss = 0;
    int64_t targets = 0;
  };
  std::vector<Sample> samples;  // in the order given
};

}  // namespace minigpt4
