// Trains the projection of a loaded model: gradients of batches add up, a step of AdamW uses them.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "models/minigpt4.h"
#include "train/llama_backward.h"
#include "train/training_batch.h"

namespace minigpt4 {

struct TrainerOptions {
  int max_rows = 2048;  // of one pass through the language model; a larger batch takes several, with the same result
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.05;  // of the weight; the bias has none
};

/// The projection: weight [output, input] and bias [output], or numbers that belong to each of their elements.
struct ProjectionValues {
  std::vector<float> weight, bias;
};

/// All that a run needs to go on with the same bits.
struct TrainerState {
  int64_t step = 0;  // steps of AdamW done
  ProjectionValues values, first_moment, second_moment;
};

/// Gradient sums over targets, not yet divided by their number.
struct GradientSum {
  ProjectionValues sum;
  int64_t targets = 0;
};

/// One thread at a time, the one that computes with the model.
class Trainer {
 public:
  /// Starts with the model's own projection. Errors: ERR_ARGUMENT (a language model alone, options out of range),
  /// ERR_OUT_OF_MEMORY.
  Trainer(MiniGpt4& model, const TrainerOptions& options);

  /// Asked between layers; true ends a pass early with ERR_ABORTED, and what it had added is taken back.
  using Stop = std::function<bool()>;
  /// Adds the gradient of the samples' loss sum to what is there: several calls are exactly one with all samples. Errors:
  /// ERR_ARGUMENT (ids, targets or features that do not fit, a sequence longer than max_rows or the model's context),
  /// ERR_ABORTED, ERR_OUT_OF_MEMORY; after an error everything is as it was before the call.
  BatchLoss accumulate(const std::vector<TrainingSample>& samples, const Stop& stop = {});
  /// The losses alone.
  BatchLoss evaluate(const std::vector<TrainingSample>& samples, const Stop& stop = {});

  GradientSum gradient();
  /// Takes the place of what was accumulated: the sum over several processes. Errors: ERR_SHAPE, ERR_ARGUMENT (fewer than 0
  /// targets); then nothing has changed.
  void set_gradient(const GradientSum& gradient);
  void discard_gradient();

  struct Step {
    double gradient_norm = 0;  // of the mean over targets, before clipping
    bool clipped = false;
  };
  /// One step of AdamW with the mean of the gradients over their targets, shortened to max_norm where it is longer
  /// (0: never); then the gradient is zero again. Errors: ERR_ARGUMENT (nothing was accumulated, a rate that is negative or not
  /// finite), ERR_NAN_LOSS (the gradient is not finite; nothing has changed).
  Step apply(double rate, double max_norm = 0);

  TrainerState state();
  /// Errors: ERR_SHAPE, ERR_ARGUMENT (a step below 0); then nothing has changed.
  void restore(const TrainerState& state);
  /// A picture's vectors with the projection as it is now. features[rows, projection input]. Error: ERR_SHAPE.
  ImageTokens project(const std::vector<float>& features);

 private:
  struct Parameters {
    Buffer<float> weight, bias;  // [output, input], [output]
    Parameters(Ops& ops, int64_t output, int64_t input);
  };
  MiniGpt4& model_;
  Ops& ops_;
  TrainerOptions options_;
  int64_t input_, output_;
  int64_t step_ = 0, targets_ = 0;
  Parameters values_, gradient_, first_, second_;
  std::unique_ptr<Matrix> matrix_;  // values_.weight as the products read it
  LlamaBackward llama_;
  Buffer<float> x_, dx_;        // [T, E]: the pass's rows, and the gradients of those that are asked for
  Buffer<float> features_;      // [n, input]
  Buffer<float> tokens_;        // [n, output]: the pictures' vectors, then their gradients
  Buffer<int32_t> image_rows_;  // [n]

  BatchLoss go(const std::vector<TrainingSample>& samples, bool gradients, const Stop& stop,
               const std::function<void()>& before_several);
  bool pass(std::span<const TrainingSample> samples, bool gradients, const Stop& stop, BatchLoss& loss);
  ProjectionValues download(const Parameters& from);
  void upload(Parameters& to, const ProjectionValues& from);
  void check(const ProjectionValues& values, const char* what) const;
  void copy(Parameters& to, const Parameters& from);
  void clear(Parameters& of);
};

}  // namespace minigpt4
