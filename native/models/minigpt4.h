// The whole model: a picture becomes vectors in the language model's space, which reads them between words.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/llama.h"
#include "models/qformer.h"
#include "models/vit.h"
#include "models/weights.h"

namespace minigpt4 {

class GgufFile;
class MappedFile;
class WeightLoader;

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
  int max_images = 1;  // that are encoded at once
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
  /// What lies in files is among it.
  std::vector<Holding> holdings() const;
  /// To be asked before anything that was computed is handed out. Error ERR_FILE_CHANGED where matrices lie in a file that was
  /// truncated or written to since the load: what was computed may come of other numbers.
  void check_files() const;
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
  int max_images() const { return placement_.max_images; }

  /// A picture, and what is wanted of it.
  struct Picture {
    const float* pixels = nullptr;  // [3, S, S], normalised, in host memory
    bool projected = true;          // false: what the projection reads, [image tokens, projection input]
  };
  /// What becomes of each, the same bits whatever else is there. One thread at a time. Errors: ERR_ARGUMENT without a
  /// vision side, or for more pictures than max_images(); those of check_files().
  std::vector<ImageTokens> encode(std::span<const Picture> pictures, const Trace& trace = {});
  /// Milliseconds of the last encode() that were the ViT's; none before the first, and on a device, which is waited for at the end
  /// alone.
  std::optional<double> vit_ms() const { return vit_ms_; }
  /// Bytes that encoding takes beside weights, for each picture that is encoded at once; what the ops' scratch may grow by
  /// is among them.
  static size_t picture_bytes(const VisionConfig& vision, const ProjectionConfig& projection);

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
  std::set<std::shared_ptr<const MappedFile>> mapped_files_;  // that matrices lie in
  std::vector<Holding> mapped_;
  std::optional<Vit> vit_;
  std::optional<QFormer> qformer_;
  Buffer<float> pixels_;    // [B, 3, S, S]
  Buffer<float> seen_;      // [B·P, ViT width]
  Buffer<float> features_;  // [B·image tokens, projection input]
  Buffer<float> tokens_;    // [B·image tokens, E]
  std::optional<double> vit_ms_;

  void see(std::span<const Picture> pictures, const Trace& trace);
  void note_mapped(const WeightLoader& loader);
  void load_vision(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes);
  void load_projection(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes);
  void load_llama(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes);
};

}  // namespace minigpt4
