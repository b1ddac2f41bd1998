// Puts rows of several sequences end to end and runs them through the language model in one pass.
#pragma once

#include <vector>

#include "engine/sequence.h"
#include "models/llama.h"

namespace minigpt4 {

/// Some positions of one sequence that are to be computed: they follow what the sequence holds already.
struct BatchPart {
  Sequence* sequence;
  Prompt rows;
};

class BatchRunner {
 public:
  /// `max_sequences`: the most parts of a batch.
  BatchRunner(MiniGpt4& model, Llama& llama, const KvCache& cache, int context, int max_sequences);

  /// Computes all parts (their sequences have room reserved, page copies done) and appends their slots. Rows of the
  /// result, in order, stay in `x()` until the next run. False: `stop` ended it early, and nothing was appended.
  bool run(const std::vector<BatchPart>& parts, const Trace& trace = {}, const Llama::Stop& stop = {});
  const float* x() const { return x_; }

 private:
  MiniGpt4& model_;
  Llama& llama_;
  const KvCache& cache_;
  int max_pages_;
  Buffer<float> x_;  // [T, C]
  Buffer<int32_t> offsets_, positions_, page_table_;
  std::vector<int32_t> host_offsets_, host_positions_, host_page_table_, host_ids_;
  void embed(const std::vector<BatchPart>& parts);
};

}  // namespace minigpt4
