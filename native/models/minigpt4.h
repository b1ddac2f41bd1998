// The whole model: a picture becomes vectors in the language model's space, which reads them between words.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/llama.h"
#include "models/qformer.h"
#include "models/vit.h"
#include "models/weights.h"

namespace minigpt4 {

class GgufFile;

/// The open files that make a model.
struct ModelFiles {
  std::shared_ptr<const GgufFile>
      model;                            // a bundle, or a vision file; null: a language model alone, which sees nothing
  std::shared_ptr<const GgufFile> llm;  // null: in `model`
  std::shared_ptr<const GgufFile> projection;  // null: in `model`

  /// Opens what is named; "" leaves a file out. Errors: those of GgufFile; ERR_ARGUMENT (neither a model nor a language
  /// model, a projection without a model).
  static ModelFiles open(const std::string& model, const std::string& llm, const std::string& projection);
  const GgufFile& language_model() const { return llm ? *llm : *model; }
};

/// The vectors of one picture, in host memory: in the language model's space, or before the projection.
struct ImageTokens {
  int tokens = 0, width = 0;
  std::vector<float> values;  // [tokens, width]
};

/// Values in each part.
struct ParameterCounts {
  int64_t vision = 0, qformer = 0, projection = 0, llm = 0;
};

/// Where a model's parts are computed: on the device that was asked for, or on the CPU beside it.
struct Placement {
  int device_layers = 0;  // of the language model, the last ones
  bool vision_on_device = true;
};

/// What computes. `host` may be null where the placement leaves nothing for it.
struct Backends {
  std::unique_ptr<Ops> device, host;
};

/// Layers of the language model on one backend. The first run has the embeddings, the last one the logits.
struct LlamaRun {
  Ops* ops;
  LayerRange range;
};

class MiniGpt4 {
 public:
  /// Reads and checks everything. `on_progress`: fractions 0..1; throwing from it ends the load.
  /// Errors: those of GgufFile and WeightLoader; ERR_ARGUMENT (no language model or no projection in the files given);
  /// ERR_SHAPE (parts that do not fit each other, such as a 13B projection before a 7B language model).
  MiniGpt4(Backends backends, const Placement& placement, const ModelFiles& files,
           const std::function<void(double)>& on_progress = {});
  ~MiniGpt4();

  /// "cpu avx512, 2 threads"; of a model in two places also what is where.
  std::string describe() const;
  std::vector<Holding> holdings() const;
  const Placement& placement() const { return placement_; }
  /// True where a device beside the host was asked for.
  bool on_device() const { return backends_.device->is_device(); }
  /// What computes the picture's side.
  Ops& vision_ops() const { return placement_.vision_on_device ? *backends_.device : *backends_.host; }
  /// In order; one, or two where the host begins.
  std::vector<LlamaRun> llama_runs() const;
  /// False for a language model alone; then vision() and projection() must not be asked for.
  bool sees() const { return vision_.has_value(); }
  const VisionConfig& vision() const { return *vision_; }
  const ProjectionConfig& projection() const { return projection_; }
  const LlamaConfig& llama() const { return llama_; }
  const LlamaWeights& llama_weights() const { return llama_weights_; }
  const Linear& projection_weights() const { return projection_weights_; }
  const ParameterCounts& parameters() const { return parameters_; }
  int image_tokens() const { return vision_ ? vision_->image_tokens(projection_) : 0; }

  /// pixels[3, S, S], normalised, in host memory. One thread at a time. Error ERR_ARGUMENT without a vision side.
  ImageTokens encode_image(const float* pixels, const Trace& trace = {});
  /// The same before the projection: [image tokens, projection input].
  ImageTokens encode_features(const float* pixels);

 private:
  Backends backends_;  // first in, last out: everything below lives in their memory
  Placement placement_;
  std::optional<VisionConfig> vision_;
  ProjectionConfig projection_{};
  LlamaConfig llama_{};
  VitWeights vit_weights_;
  QFormerWeights qformer_weights_;
  Linear projection_weights_;
  LlamaWeights llama_weights_;
  ParameterCounts parameters_;
  std::optional<Vit> vit_;
  std::optional<QFormer> qformer_;
  Buffer<float> pixels_;   // [3, S, S]
  Buffer<float> seen_;     // [P, ViT width]
  Buffer<float> queries_;  // [Q, Q-Former width]
  Buffer<float> tokens_;   // [image tokens, E]

  const float* see(const float* pixels, const Trace& trace);
  void load_vision(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes);
  void load_projection(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes);
  void load_llama(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes);
};

}  // namespace minigpt4
