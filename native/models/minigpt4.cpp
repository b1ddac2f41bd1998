#include "models/minigpt4.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "core/error.h"
#include "core/gguf.h"
#include "models/weight_loader.h"

namespace minigpt4 {
namespace {

constexpr const char* kEmbedding = "token_embd.weight";

std::string architecture(const GgufFile& file) { return file.string_key("general.architecture", ""); }

void expect_vision(const GgufFile& file) {
  const std::string found = architecture(file);
  if (found == "minigpt4" && file.find("minigpt4.vit.image_size")) return;
  if (found == "llama") {
    fail(code::argument, file.path(), " holds a language model alone, expected a MiniGPT-4 file (make one with",
         " `minigpt4 convert`, and give this file as the language model)");
  }
  fail(code::argument, file.path(), " is of architecture \"", found,
       "\", expected a \"minigpt4\" file with a vision encoder");
}

void expect_language_model(const GgufFile& file, bool separate) {
  const std::string found = architecture(file);
  if (file.find("llama.embedding_length") && (found == "llama" || found == "minigpt4")) return;
  if (!separate) {
    fail(code::argument, file.path(), " holds no language model: give one as well (a llama-architecture GGUF file)");
  }
  fail(code::unsupported, file.path(), " is of architecture \"", found, "\", expected \"llama\"");
}

void expect_projection(const GgufFile& file) {
  if (file.find("minigpt4.projection.output_length")) return;
  fail(code::argument, file.path(), " holds no projection: give a projection file as well");
}

/// A block count that is too small would leave tensors out without a word, and answer differently.
void check_block_count(const GgufFile& file, const std::string& prefix, int depth) {
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.compare(0, prefix.size(), prefix) != 0) continue;
    const long block = std::strtol(tensor.name.c_str() + prefix.size(), nullptr, 10);
    if (block >= depth) {
      fail(code::file_format, file.path(), ": tensor ", tensor.name, " is of a block beyond the ", depth,
           " that the file's keys tell of");
    }
  }
}

/// The three parts must be of one family; the classic mistake is a 13B projection with a 7B language model.
void check_fit(const GgufFile& vision_file, const VisionConfig& vision, const GgufFile& projection_file,
               const ProjectionConfig& projection, const GgufFile& llm_file, const LlamaConfig& llama) {
  const int per_token = projection.patches_per_token;
  if (vision.qformer && per_token != 1) {
    fail(code::shape, projection_file.path(), ": the projection takes ", per_token, " patches a token, but ",
         vision_file.path(), " has a Q-Former: this projection is of the variant without one");
  }
  const int64_t before = vision.qformer ? vision.qformer->width : int64_t(vision.vit.width) * per_token;
  if (projection.input != before) {
    fail(code::shape, projection_file.path(), ": the projection's input is ", projection.input, " wide, but ",
         vision.qformer ? "the Q-Former of " : "the patches of ", vision_file.path(), " give ", before);
  }
  if (!vision.qformer && vision.vit.patches() % per_token != 0) {
    fail(code::shape, vision_file.path(), ": ", vision.vit.patches(), " patches are no multiple of ", per_token,
         " a token");
  }
  if (projection.output != llama.width) {
    fail(code::shape, projection_file.path(), ": the projection's output is ", projection.output,
         " wide, but the language model in ", llm_file.path(), " is ", llama.width,
         " wide (7B models are 4096, 13B models 5120): use a projection trained for it");
  }
}

/// Gives each tensor of the language model to the backend that computes with it.
class LlamaLoader : public TensorVisitor {
 public:
  /// `first`: the first layer of the second loader; null, where there is one alone.
  LlamaLoader(WeightLoader& front, WeightLoader* back, int first) : front_(front), back_(back), first_(first) {}

  void matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Matrix>& slot,
              Presence presence) override {
    at(name).matrix(name, rows, cols, slot, presence);
  }
  void floats(const std::string& name, const std::vector<uint64_t>& shape, Floats& slot, Presence presence) override {
    at(name).floats(name, shape, slot, presence);
  }
  void numbers(const std::string& name, int64_t count, std::vector<float>& slot, Presence presence) override {
    front_.numbers(name, count, slot, presence);
  }

 private:
  WeightLoader& front_;
  WeightLoader* back_;
  int first_;

  WeightLoader& at(const std::string& name) {
    const int layer = llama_layer_of(name);
    const bool in_front = layer >= 0 ? layer < first_ : name == kEmbedding;
    return in_front || !back_ ? front_ : *back_;
  }
};

}  // namespace

ModelFiles ModelFiles::open(const std::string& model, const std::string& llm, const std::string& projection) {
  if (model.empty() && llm.empty()) fail(code::argument, "no model file was given, expected one at least");
  if (model.empty() && !projection.empty()) {
    fail(code::argument, projection,
         ": a projection was given to a language model alone, expected a vision file with it");
  }
  const auto open_one = [](const std::string& path) -> std::shared_ptr<const GgufFile> {
    return path.empty() ? nullptr : std::make_shared<const GgufFile>(path);
  };
  return {open_one(model), open_one(llm), open_one(projection)};
}

MiniGpt4::MiniGpt4(Backends backends, const Placement& placement, const ModelFiles& files,
                   const std::function<void(double)>& on_progress)
    : backends_(std::move(backends)), placement_(placement) {
  const auto& [model, llm, projection] = files;
  const GgufFile& llm_file = files.language_model();
  const GgufFile* projection_file = projection ? projection.get() : model.get();

  expect_language_model(llm_file, llm != nullptr);
  llama_ = read_llama_config(llm_file);
  if (model) {
    expect_vision(*model);
    expect_projection(*projection_file);
    vision_ = read_vision_config(*model);
    projection_ = read_projection_config(*projection_file);
    check_fit(*model, *vision_, *projection_file, projection_, llm_file, llama_);
  }

  uint64_t total = 0, done = 0;
  for (const GgufFile* file : {model.get(), llm.get()}) {
    if (!file) continue;
    for (const GgufTensor& tensor : file->tensors()) total += tensor.bytes;
  }
  const auto on_bytes = [&](uint64_t bytes) {
    done += bytes;
    if (on_progress && total) on_progress(std::min(1.0, double(done) / double(total)));
  };
  if (model) {
    load_vision(*model, on_bytes);
    load_projection(*projection_file, on_bytes);
  }
  load_llama(llm_file, on_bytes);
  // a file that was truncated or replaced meanwhile must not become a model
  for (const GgufFile* file : {model.get(), llm.get(), projection.get()}) {
    if (file) file->check_unchanged();
  }
  if (on_progress) on_progress(1.0);
}

MiniGpt4::~MiniGpt4() = default;

std::vector<LlamaRun> MiniGpt4::llama_runs() const {
  Ops *device = backends_.device.get(), *host = backends_.host.get();
  const int first = llama_.depth - placement_.device_layers;
  if (first == 0) return {{device, {0, llama_.depth}}};
  if (first == llama_.depth) return {{host, {0, llama_.depth}}};
  return {{host, {0, first}}, {device, {first, llama_.depth}}};
}

std::string MiniGpt4::describe() const {
  std::string text = backends_.device->describe();
  if (!backends_.host) return text;
  text += ": " + std::to_string(placement_.device_layers) + " of " + std::to_string(llama_.depth) + " layers";
  if (sees()) text += placement_.vision_on_device ? " and the picture's side" : ", not the picture's side";
  return text + "; the rest on " + backends_.host->describe();
}

void MiniGpt4::check_files() const {
  for (const auto& file : mapped_files_) file->check_unchanged();
}

void MiniGpt4::note_mapped(const WeightLoader& loader) {
  if (loader.mapped().pieces > 0) mapped_.push_back(loader.mapped());
  mapped_files_.insert(loader.mapped_files().begin(), loader.mapped_files().end());
}

std::vector<Holding> MiniGpt4::holdings() const {
  std::vector<Holding> all = mapped_;
  for (Holding& one : backends_.device->holdings()) all.push_back(std::move(one));
  if (!backends_.host) return all;
  for (Holding& one : backends_.host->holdings()) {
    one.owner += " (CPU)";
    all.push_back(std::move(one));
  }
  return all;
}

void MiniGpt4::load_vision(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes) {
  const VitConfig& v = vision_->vit;
  WeightLoader vit(vision_ops(), file, "vit weights", on_bytes);
  visit_tensors(v, vit_weights_, vit);
  check_block_count(file, "v.blk.", v.depth);
  note_mapped(vit);
  parameters_.vision = vit.parameters();
  const int images = max_images();
  vit_.emplace(vision_ops(), v, vit_weights_, images);
  pixels_ = Buffer<float>(vision_ops(), int64_t(images) * 3 * v.image_size * v.image_size);
  seen_ = Buffer<float>(vision_ops(), int64_t(images) * v.rows() * v.width);
  features_ = Buffer<float>(vision_ops(), int64_t(images) * image_tokens() * projection_.input);
  if (!vision_->qformer) return;
  const QFormerConfig& q = *vision_->qformer;
  WeightLoader qformer(vision_ops(), file, "qformer weights", on_bytes);
  visit_tensors(q, v.width, qformer_weights_, qformer);
  check_block_count(file, "qf.blk.", q.depth);
  note_mapped(qformer);
  parameters_.qformer = qformer.parameters();
  qformer_.emplace(vision_ops(), q, qformer_weights_, v.rows(), images);
}

void MiniGpt4::load_projection(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes) {
  WeightLoader projection(vision_ops(), file, "projection weights", on_bytes);
  visit_tensors(projection_, projection_weights_, projection);
  note_mapped(projection);
  parameters_.projection = projection.parameters();
  tokens_ = Buffer<float>(vision_ops(), int64_t(max_images()) * image_tokens() * projection_.output);
}

void MiniGpt4::load_llama(const GgufFile& file, const std::function<void(uint64_t)>& on_bytes) {
  constexpr const char* owner = "llm weights";
  const std::vector<LlamaRun> runs = llama_runs();
  WeightLoader front(*runs.front().ops, file, owner, on_bytes);
  WeightLoader back(*runs.back().ops, file, owner, on_bytes);
  LlamaLoader loader(front, runs.size() > 1 ? &back : nullptr, runs.back().range.begin);
  visit_tensors(llama_, llama_weights_, loader);
  check_block_count(file, "blk.", llama_.depth);
  note_mapped(front);
  note_mapped(back);
  parameters_.llm = front.parameters() + back.parameters();
  if (runs.size() > 1 && !llama_weights_.head) {
    // one matrix embeds on the host and gives logits on the device: it is in both, and counted once
    WeightLoader again(*runs.back().ops, file, owner, {});
    again.matrix(kEmbedding, llama_.vocab, llama_.width, llama_weights_.head, Presence::required);
  }
}

size_t MiniGpt4::picture_bytes(const VisionConfig& vision, const ProjectionConfig& projection) {
  const VitConfig& v = vision.vit;
  const size_t tokens = size_t(vision.image_tokens(projection));
  const size_t pixels = size_t(3) * size_t(v.image_size) * size_t(v.image_size);
  const size_t own =
      pixels + size_t(v.rows()) * size_t(v.width) + tokens * size_t(projection.input + projection.output);
  // a device's ops bring a product's rows into a form of their own, of at most as many bytes
  const size_t rows =
      std::max({size_t(v.rows()) * size_t(std::max(v.width, v.mlp)), pixels, tokens * size_t(projection.input)});
  size_t bytes = (own + rows) * sizeof(float) + Vit::scratch_bytes(v, 1);
  if (vision.qformer) bytes += QFormer::scratch_bytes(*vision.qformer, v.rows(), 1);
  return bytes;
}

/// Fills features_ with what the projection reads.
void MiniGpt4::see(std::span<const Picture> pictures, const Trace& trace) {
  if (!vision_) fail(code::argument, "this is a language model alone, expected one with a vision encoder");
  const int B = int(pictures.size());
  if (B > max_images()) fail(code::argument, B, " pictures at once, expected at most ", max_images());
  const VitConfig& v = vision_->vit;
  const int64_t S = v.image_size, each = 3 * S * S;
  for (int b = 0; b < B; ++b) {
    vision_ops().upload(pixels_ + b * each, pictures[size_t(b)].pixels, size_t(each) * sizeof(float));
  }
  const auto began = std::chrono::steady_clock::now();
  vit_->forward(seen_, pixels_, B, trace);
  if (!vision_ops().is_device()) {
    vit_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
  }
  if (qformer_) return qformer_->forward(features_, seen_, B, trace);
  // without a Q-Former: all patches but the class token, and runs of neighbours read as one long row each
  const int64_t patches = int64_t(v.patches()) * v.width;
  for (int b = 0; b < B; ++b) {
    vision_ops().copy(features_ + b * patches, seen_ + b * (patches + v.width) + v.width,
                      size_t(patches) * sizeof(float));
  }
}

std::vector<ImageTokens> MiniGpt4::encode(std::span<const Picture> pictures, const Trace& trace) {
  see(pictures, trace);
  const int n = image_tokens(), T = int(pictures.size()) * n;
  if (std::any_of(pictures.begin(), pictures.end(), [](const Picture& picture) { return picture.projected; })) {
    const Linear& w = projection_weights_;
    vision_ops().matmul(tokens_, *w.weight, features_, w.bias.get(), T, Accumulate::no);
    if (trace) trace(vision_ops(), "image_tokens", tokens_, T, llama_.width);
  }
  std::vector<ImageTokens> encoded;
  for (size_t b = 0; b < pictures.size(); ++b) {
    const bool projected = pictures[b].projected;
    const int width = projected ? llama_.width : projection_.input;
    ImageTokens& one = encoded.emplace_back(ImageTokens{n, width, std::vector<float>(size_t(n) * size_t(width))});
    const float* const from = (projected ? tokens_ : features_) + int64_t(b) * n * width;
    vision_ops().download(one.values.data(), from, one.values.size() * sizeof(float));
  }
  check_files();
  return encoded;
}

}  // namespace minigpt4
