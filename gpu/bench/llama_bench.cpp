// Times whole steps of a model on a device: a token of Vicuna 7B for one chat, 8 and 32, as the engine takes it (one
// recorded step, ids to and fro), a prompt, pictures through ViT-g and the Q-Former, and a training step, each beside its
// floor. The weights are random and of the real sizes, so that no file is needed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "bench.h"
#include "core/error.h"
#include "engine/next_tokens.h"
#include "models/linear.h"
#include "models/llama.h"
#include "models/qformer.h"
#include "models/vit.h"
#include "random_weights.h"
#include "train/llama_backward.h"

namespace minigpt4::bench {
namespace {

constexpr const char* kUsage =
    "usage: llama_bench [--device cuda|simt|cpu] [--copy BYTES/S] [--matrix OPERATIONS/S] [--tiny] [WORD]\n"
    "  --copy, --matrix  rates of this device that floors are made of; default: those measured on an H100\n"
    "  --tiny            a small model, one repetition: does it run?\n"
    "  WORD              only cases whose name has it: Q4_0, F16, pictures, prompt, ...\n";

/// What is measured: a model, and how much is asked of it.
struct Sizes {
  std::string llama_name;
  LlamaConfig llama;
  VitConfig vit;
  QFormerConfig qformer;
  int positions, prompt, sequences, length, picture;  // of a training step: so many sequences of `length` rows, and the
                                                      // row that the picture begins at
  std::vector<int> chats, pictures;
};

LlamaConfig llama_config(int width, int heads, int depth, int mlp, int vocab, int context) {
  LlamaConfig c{};
  c.width = width;
  c.heads = c.kv_heads = heads;
  c.head_dim = c.rope_dims = width / heads;
  c.depth = depth;
  c.mlp = mlp;
  c.vocab = vocab;
  c.context = context;
  c.eps = 1e-6f;
  c.rope_base = 10000;
  c.rope_scale = 1;
  return c;
}

VitConfig vit_config(int image_size, int patch_size, int width, int heads, int depth, int mlp) {
  VitConfig c{};
  c.image_size = image_size;
  c.patch_size = patch_size;
  c.width = width;
  c.heads = heads;
  c.depth = depth;
  c.mlp = mlp;
  c.eps = c.post_eps = 1e-6f;
  return c;
}

Sizes vicuna() {
  return {"Vicuna 7B",
          llama_config(4096, 32, 32, 11008, 32000, 2048),
          vit_config(224, 14, 1408, 16, 39, 6144),
          {.width = 768, .heads = 12, .depth = 12, .mlp = 3072, .queries = 32, .cross_every = 2, .eps = 1e-12f},
          256,
          128,
          12,
          192,
          24,
          {1, 8, 32},
          {1, 8, 32}};
}

Sizes tiny() {
  return {"tiny Llama",
          llama_config(64, 2, 2, 96, 96, 128),
          vit_config(28, 14, 48, 2, 2, 96),
          {.width = 64, .heads = 1, .depth = 2, .mlp = 96, .queries = 4, .cross_every = 2, .eps = 1e-12f},
          20,
          24,
          2,
          20,
          4,
          {1, 3},
          {1, 2}};
}

/// A language model of random weights on the device.
struct Model {
  const LlamaConfig& config;
  LlamaWeights weights;
  double layer_bytes, layer_values, head_bytes, head_values;  // all layers together; the output's matrix

  Model(Ops& ops, const LlamaConfig& c, Type type) : config(c) {
    RandomWeights random(ops, type);
    visit_tensors(c, weights, random);
    head_bytes = double(row_bytes(type, uint64_t(c.width))) * c.vocab;
    head_values = double(c.vocab) * c.width;
    layer_bytes = random.bytes() - 2 * head_bytes;  // the embeddings are looked up, not multiplied with
    layer_values = random.values() - 2 * head_values;
  }

  /// A pass of T rows that see `seen` positions in all and read `positions` of the f16 cache, with n rows of logits.
  Work pass(double T, double seen, double positions, double n) const {
    const double heads = double(config.heads) * config.head_dim * config.depth;
    const double keys = 4.0 * config.kv_heads * config.head_dim * config.depth;  // bytes a position
    return {layer_bytes + (n > 0 ? head_bytes : 0) + positions * keys,
            2 * T * layer_values + 2 * n * head_values + 4 * seen * heads};
  }
};

std::vector<int32_t> some_ids(int count, int vocab) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back((i * 7919 + 3) % vocab);
  return ids;
}

/// A model that is made when the first case that wants it asks.
using Lazy = std::function<const Model&()>;

/// Chats that go on together as the engine's do, each in pages of its own.
class Chats {
 public:
  Chats(Ops& ops, uint64_t key, const Model& model, int chats, int most_positions, int max_rows)
      : ops_(ops),
        key_(key),
        model_(model),
        chats_(chats),
        pages_(pages_for(most_positions)),
        cache_(ops, model.config, Type::F16, chats * pages_, {0, model.config.depth}),
        llama_(ops, model.config, model.weights, {0, model.config.depth}, max_rows, kLogitRows),
        next_(llama_, model.config.vocab, chats, model.config.vocab),
        x_(ops, int64_t(max_rows) * model.config.width),
        ids_(ops, max_rows),
        offsets_(ops, chats + 1),
        positions_(ops, max_rows),
        page_table_(ops, int64_t(chats) * pages_) {
    std::vector<int32_t> table;
    for (int i = 0; i < chats * pages_; ++i) table.push_back(i);
    page_table_.set(table);
    for (int b = 0; b < chats; ++b) {
      Ops::Draw draw;
      draw.temperature = 1;
      draw.top_k = 50;
      draw.top_p = 0.9f;
      draw.penalty = 1.05f;
      draw.generated = next_.take_place();
      draws_.push_back(draw);
    }
  }

  /// `rows` rows of every chat from position `first` on, and a token of each.
  void read(int first, int rows) {
    std::vector<int32_t> last;
    for (int b = 0; b < chats_; ++b) last.push_back((b + 1) * rows - 1);
    const RaggedBatch batch = lay(some_ids(chats_ * rows, model_.config.vocab), first, rows);
    next_.upload(last, draws_);
    llama_.embed(x_, ids_, batch.rows);
    llama_.forward(x_, batch, cache_);
    next_.draw(x_, chats_);
    take();
  }

  /// The token after `position` positions: the recorded step, and its ids back to the host.
  void step(int position) {
    std::vector<int32_t> rows;
    for (int b = 0; b < chats_; ++b) rows.push_back(b);
    for (size_t b = 0; b < draws_.size(); ++b) draws_[b].uniform = double((position * 31 + int(b)) % 97) / 97;
    const RaggedBatch batch = lay(drawn_, position, 1);
    next_.upload(rows, draws_);
    ops_.replay(key_, [&] {
      llama_.embed(x_, ids_, batch.rows);
      llama_.forward(x_, batch, cache_);
      next_.draw(x_, chats_);
    });
    take();
  }

 private:
  Ops& ops_;
  uint64_t key_;  // of the recorded step
  const Model& model_;
  int chats_, pages_;
  KvCache cache_;
  Llama llama_;
  NextTokens next_;
  Buffer<float> x_;  // [T, C]
  Mirrored<int32_t> ids_, offsets_, positions_, page_table_;
  std::vector<Ops::Draw> draws_;
  std::vector<int32_t> drawn_;

  RaggedBatch lay(const std::vector<int32_t>& ids, int first, int rows) {
    std::vector<int32_t> offsets{0}, positions;
    for (int b = 0; b < chats_; ++b) {
      for (int t = 0; t < rows; ++t) positions.push_back(first + t);
      offsets.push_back(int32_t(positions.size()));
    }
    ids_.set(ids);
    offsets_.set(offsets);
    positions_.set(positions);
    return {int(positions.size()), chats_, pages_, offsets_, positions_, page_table_};
  }

  void take() {
    drawn_ = next_.download(chats_);
    for (const int32_t id : drawn_) {
      if (id < 0) fail(code::internal, "logit ", -1 - id, " of random weights is not finite");
    }
  }
};

void language(Bench& bench, const Sizes& sizes, const Lazy& lazy, const std::string& title) {
  const LlamaConfig& c = sizes.llama;
  const int steps = 256;  // positions that a chat may grow by while it is timed
  for (const int chats : sizes.chats) {
    const std::string name = title + ", " + std::to_string(chats) + (chats == 1 ? " chat" : " chats") + " at " +
                             std::to_string(sizes.positions) + " positions";
    if (!bench.wanted(name)) continue;
    const Model& model = lazy();
    const int most = std::min(c.context, sizes.positions + steps);
    Chats all(bench.ops(), bench.new_key(), model, chats, most, std::max(sizes.positions, 1) * chats);
    all.read(0, sizes.positions);
    // around the middle of 256 positions on: from 128 before to 128 behind, over and over
    const int first = sizes.positions / 2, span = std::min(sizes.positions, most - first);
    const double seen = double(chats) * sizes.positions;
    bench.time_whole(name, model.pass(chats, seen, seen, chats), [&](int i) { all.step(first + i % span); },
                     {"tokens_s", double(chats)});
  }
  const std::string name = title + ", prompt of " + std::to_string(sizes.prompt);
  if (bench.wanted(name)) {
    const Model& model = lazy();
    const double T = sizes.prompt;
    Chats one(bench.ops(), bench.new_key(), model, 1, sizes.prompt, sizes.prompt);
    bench.time_whole(name, model.pass(T, T * (T + 1) / 2, T, 1), [&](int) { one.read(0, sizes.prompt); },
                     {"tokens_s", T});
  }
}

void training(Bench& bench, const Sizes& sizes, const Lazy& lazy, const std::string& title) {
  const LlamaConfig& c = sizes.llama;
  const int n = sizes.length, B = sizes.sequences, T = B * n;
  const std::string name = title + ", training step of " + std::to_string(B) + " x " + std::to_string(n) + " rows";
  if (!bench.wanted(name)) return;
  const Model& model = lazy();
  LlamaRows rows;
  for (int b = 0; b < B; ++b) {
    rows.offsets.push_back((b + 1) * n);
    rows.first_rows.push_back(sizes.picture);
    for (int t = 0; t < n; ++t) rows.targets.push_back(t < n / 2 ? -1 : (t * 31 + b) % c.vocab);
  }
  Ops& ops = bench.ops();
  LlamaBackward llama(ops, c, model.weights, T);
  const std::vector<int32_t> ids = some_ids(T, c.vocab);
  const Buffer<float> x(ops, int64_t(T) * c.width, "bench"), dx(ops, int64_t(T) * c.width, "bench");
  std::vector<float> losses;
  // The pass, and the gradients of its products for the rows from the picture on and the targets' logits. What is done
  // again on the way back is not counted: memory could be had for it.
  const double R = double(B) * (n - sizes.picture), targets = double(B) * (n - n / 2);
  Work work = model.pass(T, double(T) * (n + 1) / 2, 0, targets);
  work.operations += 2 * R * model.layer_values + 2 * targets * model.head_values;
  work.bytes *= 2;
  bench.time_whole(name, work,
                   [&](int) {
                     llama.embed(x, ids.data(), T);
                     llama.run(x, rows, losses, dx, {});
                   },
                   {"rows_s", double(T)});
  if (!std::all_of(losses.begin(), losses.end(), [](float loss) { return std::isfinite(loss); })) {
    fail(code::internal, "a loss of random weights is not finite");
  }
}

void vision(Bench& bench, const Sizes& sizes) {
  const VitConfig& v = sizes.vit;
  const QFormerConfig& q = sizes.qformer;
  const int most = sizes.pictures.back();
  const auto title = [](int B) {
    return "ViT and Q-Former F16, " + std::to_string(B) + (B == 1 ? " picture" : " pictures at once");
  };
  if (std::none_of(sizes.pictures.begin(), sizes.pictures.end(), [&](int B) { return bench.wanted(title(B)); })) return;
  Ops& ops = bench.ops();
  VitWeights vit_weights;
  QFormerWeights qformer_weights;
  Linear projection;
  RandomWeights of_vit(ops, Type::F16), of_qformer(ops, Type::F16), of_projection(ops, Type::F16);
  visit_tensors(v, vit_weights, of_vit);
  visit_tensors(q, v.width, qformer_weights, of_qformer);
  visit_tensors(ProjectionConfig{q.width, sizes.llama.width, 1}, projection, of_projection);
  Vit vit(ops, v, vit_weights, most);
  QFormer qformer(ops, q, qformer_weights, v.rows(), most);
  const auto pixels = random_floats(ops, int64_t(most) * 3 * v.image_size * v.image_size);
  const Buffer<float> seen(ops, int64_t(most) * v.rows() * v.width, "bench"),
      queries(ops, int64_t(most) * q.queries * q.width, "bench"),
      tokens(ops, int64_t(most) * q.queries * sizes.llama.width, "bench");

  // of one picture: matrix products, whose rows are patches but for the queries', and attention
  double operations = 2 * v.rows() * of_vit.values() + 2 * q.queries * of_projection.values() +
                      4.0 * v.depth * v.rows() * v.rows() * v.width;
  double keys = 0;  // values of the matrices that read the picture's rows
  for (int i = 0; i < q.depth; ++i) {
    operations += 4.0 * q.queries * q.queries * q.width;
    if (!q.has_cross(i)) continue;
    operations += 4.0 * q.queries * v.rows() * q.width;
    keys += 2.0 * v.width * q.width;
  }
  operations += 2 * v.rows() * keys + 2 * q.queries * (of_qformer.values() - keys);
  const double weights = of_vit.bytes() + of_qformer.bytes() + of_projection.bytes();
  for (const int B : sizes.pictures) {
    if (!bench.wanted(title(B))) continue;
    bench.time_whole(title(B), {weights + 12.0 * B * v.image_size * v.image_size, B * operations},
                     [&](int) {
                       vit.forward(seen, pixels, B);
                       qformer.forward(queries, seen, B);
                       multiply(ops, {{tokens, &projection}}, {queries}, B * q.queries);
                     },
                     {"pictures_s", double(B)});
  }
}

}  // namespace
}  // namespace minigpt4::bench

int main(int count, char** arguments) {
  using namespace minigpt4;
  using namespace minigpt4::bench;
  const Settings settings = read_settings(count, arguments, kUsage);
  return bench::run([&] {
    Bench bench(settings);
    const Sizes sizes = settings.tiny ? tiny() : vicuna();
    for (const Type type : {Type::Q4_0, Type::F16}) {
      const std::string title = sizes.llama_name + " " + name(type);
      std::unique_ptr<Model> made;
      const auto model = [&]() -> const Model& {
        if (!made) made = std::make_unique<Model>(bench.ops(), sizes.llama, type);
        return *made;
      };
      language(bench, sizes, model, title);
      training(bench, sizes, model, title);
    }
    vision(bench, sizes);
    if (bench.told() == 0) fail(code::argument, "no case's name has \"", settings.word, "\"");
  });
}
