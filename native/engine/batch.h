// Puts rows of several sequences end to end and runs them through the language model in one pass.
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "engine/sequence.h"
#include "models/llama.h"
#include "models/minigpt4.h"

namespace minigpt4 {

/// Some positions of one sequence that are to be computed: they follow what the sequence holds already.
struct BatchPart {
  Sequence* sequence;
  Prompt rows;
};

class BatchRunner {
 public:
  struct Sizes {
    int max_rows, max_sequences;  // of a pass: rows of all parts together, and parts
    int context;                  // positions of one sequence
    int pages;                    // of the cache
    Type kv_type;
  };
  BatchRunner(MiniGpt4& model, const Sizes& sizes, int max_logits);

  /// Computes all parts (their sequences have room reserved, page copies done) and appends their slots. Rows of the
  /// result, in order, stay in `x()` until the next run. False: `stop` ended it early, and nothing was appended.
  bool run(const std::vector<BatchPart>& parts, const Trace& trace = {}, const Llama::Stop& stop = {});
  /// True where every part is one token: the step of those who all decode.
  static bool is_step(const std::vector<BatchPart>& parts);
  /// The same for such a step, which the backend records the first time that so many take part, and then repeats.
  /// `after`, the record's last part, is ops of the last backend alone, the same ones for so many parts.
  void step(const std::vector<BatchPart>& parts, const std::function<void()>& after);
  /// Copies a page of the cache in every layer.
  void copy_page(int to, int from);
  int max_rows() const { return max_rows_; }
  /// In the memory of the last run's backend.
  const float* x() const { return runs_.back().x; }
  /// The last run of layers, which gives logits.
  Llama& last() { return runs_.back().llama; }

 private:
  /// Layers of one backend with all that a pass reads there.
  struct Run {
    Run(MiniGpt4& model, const LlamaRun& of, const Sizes& sizes, int max_logits);
    Ops& ops;
    KvCache cache;
    Llama llama;
    Buffer<float> x;  // [T, C]
    Mirrored<int32_t> offsets, positions, page_table;
    RaggedBatch batch;
  };

  int width_, max_rows_, max_pages_;
  std::deque<Run> runs_;
  Mirrored<int32_t> ids_;          // in the first run's memory
  std::vector<float> on_the_way_;  // [T, C] from one backend to the next

  int upload(const std::vector<BatchPart>& parts);
  void embed(const std::vector<BatchPart>& parts);
  void carry(size_t to, int T);
};

}  // namespace minigpt4
