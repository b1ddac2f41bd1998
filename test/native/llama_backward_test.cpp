// The way back through the whole language model against finite differences of the same model in double.
#include "train/llama_backward.h"

#include <algorithm>
#include <map>
#include <random>

#include "check.h"
#include "ops_case.h"

using namespace minigpt4;

namespace {

constexpr int kWidth = 20, kHeads = 4, kKvHeads = 2, kHead = 6, kRope = 4, kMlp = 27, kVocab = 37, kDepth = 3;

LlamaConfig config() {
  LlamaConfig c{};
  c.width = kWidth;
  c.heads = kHeads;
  c.kv_heads = kKvHeads;
  c.head_dim = kHead;
  c.rope_dims = kRope;
  c.depth = kDepth;
  c.mlp = kMlp;
  c.vocab = kVocab;
  c.context = 64;
  c.eps = 1e-5f;
  c.rope_base = 10000;
  c.rope_scale = 1;
  return c;
}

/// Numbers of a weight, kept beside the backend's copy for the reference.
using Values = std::vector<float>;

struct Layer {
  Values norm1, norm2, q, k, v, out, gate, up, down, q_bias;
};

/// A model with random weights, in the backend and in plain numbers.
class RandomModel {
 public:
  explicit RandomModel(Ops& backend) : ops(backend), c(config()) {
    for (int i = 0; i < c.depth; ++i) {
      layers.emplace_back();
      weights.layers.emplace_back();
      Layer& l = layers.back();
      LlamaLayer& w = weights.layers.back();
      norm(w.attention_norm, l.norm1);
      norm(w.mlp_norm, l.norm2);
      matrix(w.q.weight, l.q, kHeads * kHead, kWidth);
      matrix(w.k.weight, l.k, kKvHeads * kHead, kWidth);
      matrix(w.v.weight, l.v, kKvHeads * kHead, kWidth);
      matrix(w.out.weight, l.out, kWidth, kHeads * kHead);
      matrix(w.gate.weight, l.gate, kMlp, kWidth);
      matrix(w.up.weight, l.up, kMlp, kWidth);
      matrix(w.down.weight, l.down, kWidth, kMlp);
      l.q_bias = random(kHeads * kHead, 0.3f, 0);
      w.q.bias = floats(l.q_bias);
    }
    norm(weights.norm, last_norm);
    matrix(weights.embedding, embedding, kVocab, kWidth);
    matrix(weights.head, head, kVocab, kWidth);
  }

  Ops& ops;
  LlamaConfig c;
  LlamaWeights weights;
  std::vector<Layer> layers;
  Values last_norm, embedding, head;
  std::mt19937 random_numbers{7};

  Values random(int64_t n, float scale, float mean) {
    std::normal_distribution<float> normal(mean, scale);
    Values values(static_cast<size_t>(n));
    for (float& value : values) value = normal(random_numbers);
    return values;
  }

 private:
  void matrix(std::unique_ptr<Matrix>& slot, Values& values, int rows, int cols) {
    values = random(int64_t(rows) * cols, 0.9f / std::sqrt(float(cols)), 0);
    slot = ops.matrix({Type::F32, rows, cols, values.data()}, "test");
  }
  void norm(Norm& slot, Values& values) {
    values = random(kWidth, 0.2f, 1);
    slot.weight = floats(values);
  }
  Floats floats(const Values& values) {
    auto* memory = static_cast<float*>(ops.allocate(values.size() * sizeof(float), "test"));
    ops.upload(memory, values.data(), values.size() * sizeof(float));
    return {memory, [this](float* p) { ops.release(p); }};
  }
};

// ---- the reference: one sequence in double, plain loops

using Rows = std::vector<std::vector<double>>;

Rows product(const Rows& x, const Values& w, size_t outputs) {
  Rows y;
  for (const auto& row : x) {
    y.emplace_back();
    for (size_t o = 0; o < outputs; ++o) {
      double sum = 0;
      for (size_t i = 0; i < row.size(); ++i) sum += row[i] * double(w[o * row.size() + i]);
      y.back().push_back(sum);
    }
  }
  return y;
}

Rows normed(const Rows& x, const Values& w, double eps) {
  Rows y = x;
  for (auto& row : y) {
    double squares = 0;
    for (const double v : row) squares += v * v;
    const double inverse = 1 / std::sqrt(squares / double(row.size()) + eps);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= inverse * double(w[i]);
  }
  return y;
}

void turn(Rows& x, int heads) {
  for (size_t t = 0; t < x.size(); ++t) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < kRope / 2; ++i) {
        const double angle = double(t) * std::pow(10000.0, -double(i) / (kRope / 2));
        double &a = x[t][size_t(h * kHead + 2 * i)], &b = x[t][size_t(h * kHead + 2 * i + 1)];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
    }
  }
}

/// Σ -log p of a sequence's targets.
double loss_of(const RandomModel& m, Rows x, const std::vector<int32_t>& targets) {
  const double eps = double(m.c.eps);
  for (const Layer& l : m.layers) {
    const Rows h = normed(x, l.norm1, eps);
    Rows q = product(h, l.q, kHeads * kHead), k = product(h, l.k, kKvHeads * kHead),
         v = product(h, l.v, kKvHeads * kHead);
    for (auto& row : q) {
      for (size_t i = 0; i < row.size(); ++i) row[i] += double(l.q_bias[i]);
    }
    turn(q, kHeads);
    turn(k, kKvHeads);
    Rows attended(x.size(), std::vector<double>(kHeads * kHead, 0));
    for (size_t t = 0; t < x.size(); ++t) {
      for (int head = 0; head < kHeads; ++head) {
        const int from = head / (kHeads / kKvHeads);
        std::vector<double> p;
        double sum = 0;
        for (size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (int d = 0; d < kHead; ++d) score += q[t][size_t(head * kHead + d)] * k[s][size_t(from * kHead + d)];
          p.push_back(std::exp(score / std::sqrt(double(kHead))));
          sum += p.back();
        }
        for (size_t s = 0; s <= t; ++s) {
          for (int d = 0; d < kHead; ++d)
            attended[t][size_t(head * kHead + d)] += p[s] / sum * v[s][size_t(from * kHead + d)];
        }
      }
    }
    const Rows out = product(attended, l.out, kWidth);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < kWidth; ++i) x[t][i] += out[t][i];
    }
    const Rows h2 = normed(x, l.norm2, eps);
    Rows gate = product(h2, l.gate, kMlp);
    const Rows up = product(h2, l.up, kMlp);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < kMlp; ++i) gate[t][i] = gate[t][i] / (1 + std::exp(-gate[t][i])) * up[t][i];
    }
    const Rows down = product(gate, l.down, kWidth);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < kWidth; ++i) x[t][i] += down[t][i];
    }
  }
  const Rows logits = product(normed(x, m.last_norm, eps), m.head, kVocab);
  double loss = 0;
  for (size_t t = 0; t < x.size(); ++t) {
    if (targets[t] < 0) continue;
    double sum = 0;
    for (const double z : logits[t]) sum += std::exp(z);
    loss += std::log(sum) - logits[t][size_t(targets[t])];
  }
  return loss;
}

/// Three sequences: pictures begin at rows 1, 0 and 5; the last one is longer than a page and has a target before its picture.
LlamaRows three_sequences(std::mt19937& random) {
  LlamaRows rows;
  rows.first_rows = {1, 0, 5};
  for (const int length : {7, 1, 21}) rows.offsets.push_back(rows.offsets.back() + length);
  std::uniform_int_distribution<int32_t> id(0, kVocab - 1);
  for (int t = 0; t < rows.rows(); ++t) {
    const bool asked = t == 3 || t == 4 || t == 7 || t == 10 || (t > 20 && t % 3 != 0);
    rows.targets.push_back(asked ? id(random) : -1);
  }
  return rows;
}

struct Found {
  std::vector<float> losses, dx;
};

Found run(RandomModel& m, const LlamaRows& rows, const Values& x, int max_rows = 64) {
  LlamaBackward backward(m.ops, m.c, m.weights, max_rows);
  const int64_t n = int64_t(rows.rows()) * kWidth;
  Buffer<float> memory(m.ops, n), gradient(m.ops, n);
  m.ops.upload(memory, x.data(), size_t(n) * sizeof(float));
  Found found;
  CHECK(backward.run(memory, rows, found.losses, gradient, {}));
  int asked = rows.rows();
  for (const int32_t first : rows.first_rows) asked -= first;
  found.dx.resize(size_t(asked) * kWidth);
  m.ops.download(found.dx.data(), gradient, found.dx.size() * sizeof(float));
  return found;
}

/// Rows of sequence b, in double.
Rows sequence_of(const Values& x, const LlamaRows& rows, int b) {
  Rows of;
  for (int t = rows.offsets[size_t(b)]; t < rows.offsets[size_t(b) + 1]; ++t)
    of.emplace_back(x.begin() + t * kWidth, x.begin() + (t + 1) * kWidth);
  return of;
}

std::vector<int32_t> targets_of(const LlamaRows& rows, int b) {
  return {rows.targets.begin() + rows.offsets[size_t(b)], rows.targets.begin() + rows.offsets[size_t(b) + 1]};
}

}  // namespace

/// loss_allowed: of 1 + the loss.
static void check_against_double(const std::string& level, double loss_allowed, double allowed) {
  const auto ops = make_cpu_ops({0, level});
  RandomModel m(*ops);
  const LlamaRows rows = three_sequences(m.random_numbers);
  const Values x = m.random(int64_t(rows.rows()) * kWidth, 0.8f, 0);
  const Found found = run(m, rows, x);

  // The central difference in double errs by h² times a third derivative, 1e-8, and by rounding 1e-16 / h = 1e-12.
  constexpr double h = 1e-4;
  size_t at = 0;
  double largest = 0;
  for (int b = 0; b < rows.sequences(); ++b) {
    const Rows from = sequence_of(x, rows, b);
    const std::vector<int32_t> targets = targets_of(rows, b);
    double sum = 0;
    for (int t = rows.offsets[size_t(b)]; t < rows.offsets[size_t(b) + 1]; ++t) sum += double(found.losses[size_t(t)]);
    CHECK_NEAR(sum, loss_of(m, from, targets), loss_allowed * (1 + sum));

    // a target before the first asked row depends on no asked row: its loss is constant in these differences
    for (size_t t = size_t(rows.first_rows[size_t(b)]); t < from.size(); ++t) {
      for (size_t i = 0; i < kWidth; ++i, ++at) {
        Rows more = from, less = from;
        more[t][i] += h;
        less[t][i] -= h;
        const double slope = (loss_of(m, more, targets) - loss_of(m, less, targets)) / (2 * h);
        largest = std::max(largest, std::fabs(slope));
        CHECK_NEAR(double(found.dx[at]), slope, allowed);
      }
    }
  }
  CHECK_EQUAL(at, found.dx.size());
  CHECK(largest > 0.1);  // the differences above say something
}

TEST("language model backward: losses and gradients are those of the model in double") {
  for (const std::string& level : cpu_levels()) {
    if (ops_case::in_halves(level)) {
      // Products in halves may be short of 3 · 2^-16 of their terms, which are around 1; 4 stand one behind the other in
      // each of 3 layers, one behind those, and on the way back as many again.
      constexpr double one = 3 * 0x1p-16;
      check_against_double(level, 13 * one, 26 * one);
    } else if (level == "scalar") {  // whose bits the others have, see below
      // Float32 with sums of up to 27 terms through 3 layers: relative errors of some 1e-6 of values around 1.
      check_against_double(level, 1e-5, 2e-5);
    }
  }
}

TEST(
    "language model backward: a sequence's numbers are the same alone and among others, at every level and thread "
    "count") {
  const auto ops = make_cpu_ops({});
  RandomModel m(*ops);
  const LlamaRows rows = three_sequences(m.random_numbers);
  const Values x = m.random(int64_t(rows.rows()) * kWidth, 0.8f, 0);
  const Found together = run(m, rows, x);
  std::map<std::string, Found> by_kind;  // a level whose products are in halves has bits of its own
  for (const std::string& level : cpu_levels()) {
    for (const int threads : {1, 3}) {
      const auto other = make_cpu_ops({threads, level});
      RandomModel same(*other);
      const Found found = run(same, rows, x);
      const Found& first = by_kind.try_emplace(ops_case::in_halves(level) ? level : "float32", found).first->second;
      CHECK(found.losses == first.losses);
      CHECK(found.dx == first.dx);
    }
  }
  size_t at = 0;
  for (int b = 0; b < rows.sequences(); ++b) {
    LlamaRows one;
    one.first_rows = {rows.first_rows[size_t(b)]};
    one.targets = targets_of(rows, b);
    one.offsets = {0, int32_t(one.targets.size())};
    const Values part(x.begin() + rows.offsets[size_t(b)] * kWidth, x.begin() + rows.offsets[size_t(b) + 1] * kWidth);
    const Found alone = run(m, one, part);
    CHECK(std::equal(alone.dx.begin(), alone.dx.end(), together.dx.begin() + std::ptrdiff_t(at)));
    CHECK(std::equal(alone.losses.begin(), alone.losses.end(), together.losses.begin() + rows.offsets[size_t(b)]));
    at += alone.dx.size();
  }
}

TEST("language model backward: a stop ends it before any layer or loss, on both ways") {
  const auto ops = make_cpu_ops({});
  RandomModel m(*ops);
  const LlamaRows rows = three_sequences(m.random_numbers);
  const Values x = m.random(int64_t(rows.rows()) * kWidth, 0.8f, 0);
  LlamaBackward backward(m.ops, m.c, m.weights, 64);
  Buffer<float> memory(m.ops, int64_t(x.size())), gradient(m.ops, int64_t(x.size()));
  // the layers both ways, and the losses of rows before a picture and after it
  for (int after = 0; after < 2 * kDepth + 2; ++after) {
    m.ops.upload(memory, x.data(), x.size() * sizeof(float));
    std::vector<float> losses;
    int asked = 0;
    CHECK(!backward.run(memory, rows, losses, gradient, [&] { return asked++ == after; }));
    CHECK_EQUAL(asked, after + 1);
  }
}
