#include "models/placement.h"

#include <algorithm>

#include "core/error.h"
#include "core/gguf.h"
#include "models/tensor_list.h"

namespace minigpt4 {
namespace {

// What a device takes for itself beside our allocations (kernels, and up to 32 recorded steps of some hundred launches), and
// what the ops' scratch may grow by: a share of what the activations take.
constexpr size_t kReserve = size_t(256) << 20;

// The CPU takes 288 rows at a time through a product, and one picture of the published models has 257: several at once are
// no faster (bench/pictures.ts), but take memory and have answers wait.
constexpr int kImagesOnCpu = 1;

/// Adds up what tensors take on a device.
class SizeOf : public TensorVisitor {
 public:
  SizeOf(const Ops& ops, const GgufFile& file) : ops_(ops), file_(file) {}
  size_t bytes = 0;
  std::vector<size_t> layers;  // of the language model

  void matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Matrix>&, Presence) override {
    // a missing tensor, or one of another shape, is for the loader to tell
    if (const GgufTensor* tensor = file_.tensor(name))
      add(name, ops_.taken(ops_.matrix_bytes(tensor->type, rows, cols)));
  }
  void floats(const std::string& name, const std::vector<uint64_t>& shape, Floats&, Presence) override {
    size_t count = 1;
    for (const uint64_t n : shape) count *= size_t(n);
    if (file_.tensor(name)) add(name, ops_.taken(count * sizeof(float)));
  }
  void numbers(const std::string&, int64_t, std::vector<float>&, Presence) override {}

 private:
  const Ops& ops_;
  const GgufFile& file_;

  void add(const std::string& name, size_t count) {
    const int layer = llama_layer_of(name);
    if (layer < 0) {
      bytes += count;
      return;
    }
    if (size_t(layer) >= layers.size()) layers.resize(size_t(layer) + 1);
    layers[size_t(layer)] += count;
  }
};

/// What the picture's side takes on a device.
struct VisionBytes {
  size_t weights = 0, each = 0;  // `each`: of a picture that is encoded beside others
  size_t with(int images) const { return weights + size_t(images) * each; }
};

VisionBytes vision_bytes(const ModelFiles& files, const Ops& device) {
  const GgufFile& file = *files.model;
  const GgufFile& projection_file = files.projection ? *files.projection : file;
  // without a projection there is no model, which is for the loader to tell
  if (!projection_file.find("minigpt4.projection.output_length")) return {};
  const VisionConfig vision = read_vision_config(file);
  const ProjectionConfig projection = read_projection_config(projection_file);
  SizeOf sizes(device, file), of_projection(device, projection_file);
  VitWeights vit;
  visit_tensors(vision.vit, vit, sizes);
  QFormerWeights qformer;
  if (vision.qformer) visit_tensors(*vision.qformer, vision.vit.width, qformer, sizes);
  Linear linear;
  visit_tensors(projection, linear, of_projection);
  return {sizes.bytes + of_projection.bytes, MiniGpt4::picture_bytes(vision, projection)};
}

int images_that_fit(const VisionBytes& vision, size_t left) {
  return int(std::min<size_t>((left - vision.weights) / std::max<size_t>(vision.each, 1), kMostImages));
}

/// How many pictures a device encodes at once, where one at least fits into the bytes that are left.
int images_on_device(const VisionBytes& vision, size_t left, std::optional<int> wish) {
  if (!wish) return images_that_fit(vision, vision.with(1) + (left - vision.with(1)) / 2);
  if (vision.with(*wish) > left) {
    fail(code::out_of_memory, "the picture's side with ", *wish, " pictures at once needs ", vision.with(*wish),
         " bytes of the GPU's memory, but ", left, " are left: ", images_that_fit(vision, left),
         " at once fit (imageBatch)");
  }
  return *wish;
}

std::string layers_of(int count) { return std::to_string(count) + (count == 1 ? " layer" : " layers"); }

}  // namespace

Placement place(const ModelFiles& files, const Ops& device, const PlacementWishes& wishes, const CacheWishes& cache) {
  const GgufFile& file = files.language_model();
  const LlamaConfig c = read_llama_config(file);
  if (wishes.images && (*wishes.images < 1 || *wishes.images > kMostImages)) {
    fail(code::argument, "imageBatch is ", *wishes.images, ": expected 1 to ", kMostImages);
  }
  if (!device.is_device()) return {c.depth, true, wishes.images.value_or(kImagesOnCpu)};
  if (wishes.device_layers && (*wishes.device_layers < 0 || *wishes.device_layers > c.depth)) {
    fail(code::argument, "gpuLayers is ", *wishes.device_layers, ", but the language model has ", c.depth,
         " layers: expected 0 to ", c.depth);
  }
  if (cache.type == Type::Q8_0 && wishes.device_layers != 0) {
    fail(code::unsupported, "kvType is q8_0, which the CPU alone computes: expected f16 or f32 for layers on ",
         device.describe(), ", or gpuLayers 0");
  }
  const size_t free = device.room();

  SizeOf sizes(device, file);
  LlamaWeights weights;
  visit_tensors(c, weights, sizes);
  sizes.layers.resize(size_t(c.depth));
  const size_t page = size_t(c.kv_heads) * kv_head_bytes(cache.type, c.head_dim);
  const size_t kv = 2 * device.taken(size_t(cache.pages) * page);
  // the engine's own: rows of a pass, logits, and for each draw a bit for each id generated until then
  const size_t engine = size_t(cache.max_rows) * size_t(c.width) * sizeof(float) +
                        size_t(cache.max_logits) * size_t(c.vocab) * sizeof(float) +
                        size_t(cache.max_draws) * size_t(c.vocab) / 8;
  // a device's ops bring a product's rows into a form of their own, of at most as many bytes
  const size_t rows = size_t(cache.max_rows) * size_t(std::max(c.width, c.mlp)) * sizeof(float);
  const size_t fixed = sizes.bytes + engine + rows + Llama::scratch_bytes(c, cache.max_rows, cache.max_logits);

  const size_t most = free - std::min(kReserve, free / 8);
  const size_t room = wishes.memory ? std::min<uint64_t>(wishes.memory, most) : most;
  const auto needed = [&](int layers) {
    size_t bytes = layers > 0 ? fixed : 0;
    for (int i = c.depth - layers; i < c.depth; ++i) bytes += sizes.layers[size_t(i)] + kv;
    return bytes;
  };
  int fit = c.depth;
  while (fit > 0 && needed(fit) > room) --fit;

  Placement placement{wishes.device_layers.value_or(fit), false, wishes.images.value_or(kImagesOnCpu)};
  if (placement.device_layers > fit) {
    fail(code::out_of_memory, "the language model's last ", layers_of(placement.device_layers), " with a cache of ",
         cache.pages * kPagePositions, " positions need ", needed(placement.device_layers),
         " bytes of the GPU's memory, but ", room, " of ", free, " free bytes may be taken: ", fit, " of ", c.depth,
         " layers fit (gpuLayers), or a shorter context");
  }
  const bool asked = wishes.device_layers || wishes.vision_on_device;
  const VisionBytes vision = files.model ? vision_bytes(files, device) : VisionBytes{};
  if (fit == 0 && !asked && (!files.model || vision.with(1) > room)) {
    fail(code::out_of_memory, "nothing of the model fits on the GPU: its last layer with a cache of ",
         cache.pages * kPagePositions, " positions needs ", needed(1), " bytes",
         files.model ? ", the picture's side " + std::to_string(vision.with(1)) : "", "; ", room, " of ", free,
         " free bytes may be taken. A shorter context needs less, and device \"cpu\" none");
  }
  if (!files.model) return placement;
  const size_t left = room - needed(placement.device_layers);
  placement.vision_on_device = wishes.vision_on_device.value_or(vision.with(1) <= left);
  if (!placement.vision_on_device) return placement;
  if (vision.with(1) > left) {
    fail(code::out_of_memory, "the picture's side needs ", vision.with(1), " bytes of the GPU's memory beside ",
         layers_of(placement.device_layers), " of the language model, but ", left,
         " are left: ", placement.device_layers > 0 ? "put fewer layers there (gpuLayers), or " : "put ",
         "the picture's side on the CPU");
  }
  placement.max_images = images_on_device(vision, left, wishes.images);
  return placement;
}

}  // namespace minigpt4
