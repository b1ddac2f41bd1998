// Times the ops of a device at the shapes of Vicuna 7B, ViT-g and the Q-Former's pictures, each beside its floor.
#include <algorithm>
#include <cstring>

#include "bench.h"
#include "core/dtype.h"
#include "core/error.h"
#include "random_weights.h"

namespace minigpt4::bench {
namespace {

constexpr const char* kUsage =
    "usage: ops_bench [--device cuda|simt|cpu] [--copy BYTES/S] [--matrix OPERATIONS/S] [--tiny] [WORD]\n"
    "  --copy, --matrix  rates of this device that floors are made of; default: those measured on an H100\n"
    "  --tiny            small shapes, one repetition: does it run?\n"
    "  WORD              only cases whose name has it\n";

/// Of a weight.
struct Shape {
  int64_t cols, rows;
};

double bytes_of(Type type, const Shape& shape) {
  return double(row_bytes(type, uint64_t(shape.cols))) * double(shape.rows);
}

std::string words(int64_t T, int64_t from, int64_t to) {
  return std::to_string(T) + " x " + std::to_string(from) + " -> " + std::to_string(to);
}

/// So many copies of a weight that they do not stay in a cache of 50 MB between two uses.
std::vector<std::unique_ptr<Matrix>> copies(Bench& bench, Type type, const Shape& shape) {
  std::vector<std::unique_ptr<Matrix>> all;
  const int count = bench.tiny() ? 1 : std::clamp(int(200e6 / bytes_of(type, shape)) + 1, 1, 64);
  for (int i = 0; i < count; ++i) all.push_back(random_matrix(bench.ops(), type, shape.rows, shape.cols));
  return all;
}

void product(Bench& bench, const std::string& kind, Type type, const Shape& shape, const std::vector<int>& rows) {
  std::vector<std::unique_ptr<Matrix>> weights;  // made when the first case is wanted
  for (const int T : rows) {
    const std::string title = kind + " " + name(type) + " " + words(T, shape.cols, shape.rows);
    if (!bench.wanted(title)) continue;
    if (weights.empty()) weights = copies(bench, type, shape);
    const auto x = random_floats(bench.ops(), T * shape.cols);
    const Buffer<float> y(bench.ops(), T * shape.rows, "bench");
    const Work work{bytes_of(type, shape) + 4.0 * T * double(shape.cols + shape.rows),
                    2.0 * T * double(shape.cols) * double(shape.rows)};
    bench.time_recorded(title, work, [&](int i) {
      bench.ops().matmul(y, *weights[size_t(i) % weights.size()], x, nullptr, T, Accumulate::no);
    });
  }
}

void products(Bench& bench) {
  const std::vector<Shape> shapes = bench.tiny()
                                        ? std::vector<Shape>{{256, 48}}
                                        : std::vector<Shape>{{4096, 4096}, {4096, 11008}, {11008, 4096}, {4096, 32000}};
  for (const Type type : {Type::Q4_0, Type::Q4_K, Type::Q6_K, Type::Q8_0, Type::F16}) {
    for (const Shape& shape : shapes) {
      std::vector<int> rows{1, 8, 32, 128, 2304};
      if (bench.tiny()) rows = {1, 8, 40};
      if (shape.rows == 32000) rows = {1, 8, 32};
      product(bench, "matmul", type, shape, rows);
    }
  }
}

void gradients(Bench& bench) {
  Ops& ops = bench.ops();
  const int T = bench.tiny() ? 40 : 2304;
  const Shape shape = bench.tiny() ? Shape{256, 48} : Shape{4096, 11008};
  for (const Type type : {Type::Q4_0, Type::F16}) {
    const std::string title = std::string("matmul_dx ") + name(type) + " " + words(T, shape.rows, shape.cols);
    if (!bench.wanted(title)) continue;
    const auto w = random_matrix(ops, type, shape.rows, shape.cols);
    const auto dy = random_floats(ops, T * shape.rows);
    const Buffer<float> dx(ops, T * shape.cols, "bench");
    const Work work{bytes_of(type, shape) + 4.0 * T * double(shape.cols + shape.rows),
                    2.0 * T * double(shape.cols) * double(shape.rows)};
    bench.time_recorded(title, work, [&](int) { ops.matmul_dx(dx, *w, dy, T, Accumulate::no); });
  }
  const int B = bench.tiny() ? 2 : 12, H = bench.tiny() ? 2 : 32, D = bench.tiny() ? 32 : 128, n = T / B;
  const std::string title = "attend_dx " + std::to_string(B) + " x " + std::to_string(n);
  if (!bench.wanted(title)) return;
  const int64_t values = int64_t(B) * n * H * D;
  const auto dy = random_floats(ops, values), q = random_floats(ops, values), k = random_floats(ops, values),
             v = random_floats(ops, values);
  const Buffer<float> dq(ops, values, "bench"), dk(ops, values, "bench"), dv(ops, values, "bench");
  std::vector<int32_t> begins;
  for (int b = 0; b <= B; ++b) begins.push_back(b * n);
  const auto offsets = device_ints(ops, begins);
  // five products of half of n · n pairs: scores, their gradient, and those of q, k and v
  const Work work{28.0 * double(values), 5.0 * double(values) * (n + 1)};
  bench.time_recorded(title, work,
                      [&](int) { ops.attend_dx({dq, dk, dv, dy, q, k, v, offsets, offsets, B, H, H, D, 0.1f}); });
}

void vision(Bench& bench) {
  Ops& ops = bench.ops();
  const int B = bench.tiny() ? 1 : 32, P = bench.tiny() ? 17 : 257, D = bench.tiny() ? 24 : 88,
            H = bench.tiny() ? 2 : 16;
  const int64_t C = int64_t(H) * D, F = bench.tiny() ? 96 : 6144, T = int64_t(B) * P;
  for (const Shape& shape : {Shape{C, 3 * C}, Shape{C, C}, Shape{C, F}, Shape{F, C}}) {
    product(bench, "ViT matmul", Type::F16, shape, {int(T)});
  }
  const std::string title =
      "ViT attention " + std::to_string(B) + " x " + std::to_string(P) + ", " + std::to_string(H) + " heads";
  if (!bench.wanted(title)) return;
  const auto qkv = random_floats(ops, T * 3 * C);
  const Buffer<float> y(ops, T * C, "bench");
  Ops::Attention a;
  a.y = y;
  a.q = qkv;
  a.k = qkv + C;
  a.v = qkv + 2 * C;
  a.q_stride = a.k_stride = a.v_stride = 3 * C;
  a.B = B;
  a.Tq = a.Tk = P;
  a.H = H;
  a.D = D;
  a.scale = 0.1f;
  bench.time_recorded(title, {16.0 * double(T * C), 4.0 * double(T) * P * double(C)}, [&](int) { ops.attend(a); });
}

void paged_attention(Bench& bench) {
  Ops& ops = bench.ops();
  const int H = bench.tiny() ? 2 : 32, D = bench.tiny() ? 24 : 128;
  struct Case {
    int sequences, rows, length;  // rows of each sequence, and the positions it holds with them
  };
  const std::vector<Case> cases = bench.tiny() ? std::vector<Case>{{1, 1, 40}, {2, 20, 40}}
                                               : std::vector<Case>{{1, 1, 512},   {1, 1, 4096},   {32, 1, 512},
                                                                   {1, 128, 128}, {1, 128, 2048}, {12, 192, 192}};
  for (const Case& c : cases) {
    const std::string size =
        std::to_string(c.sequences) + " x " + std::to_string(c.rows) + " of " + std::to_string(c.length);
    const std::string title = "attend_paged " + size, writing = "rope_kv_write " + size;
    if (!bench.wanted(title) && !bench.wanted(writing)) continue;
    const int pages = pages_for(c.length), T = c.sequences * c.rows;
    std::vector<int32_t> offsets{0}, positions, table;
    for (int b = 0; b < c.sequences; ++b) {
      offsets.push_back(offsets.back() + c.rows);
      for (int t = 0; t < c.rows; ++t) positions.push_back(c.length - c.rows + t);
      for (int i = 0; i < pages; ++i) table.push_back(b * pages + i);
    }
    const int64_t values = int64_t(c.sequences) * pages * H * D * kPagePositions;
    // several layers' worth, which a decoding step reads one after the other
    const int layers = bench.tiny() ? 1 : int(std::clamp<int64_t>(int64_t(200e6) / (4 * values) + 1, 1, 32));
    const std::vector<uint16_t> half(size_t(values), float_to_half(0.1f));
    std::vector<Buffer<uint16_t>> memory;
    std::vector<KvPages> caches;
    for (int i = 0; i < layers; ++i) {
      for (int side = 0; side < 2; ++side) {
        memory.emplace_back(ops, values, "bench");
        ops.upload(memory.back(), half.data(), half.size() * sizeof(uint16_t));
      }
      caches.push_back({memory[memory.size() - 2].get(), memory.back().get(), Type::F16, c.sequences * pages, H, D});
    }
    const auto q = random_floats(ops, int64_t(T) * H * D);
    const Buffer<float> y(ops, int64_t(T) * H * D, "bench");
    const auto o = device_ints(ops, offsets), p = device_ints(ops, positions), t = device_ints(ops, table);
    const RaggedBatch batch{T, c.sequences, pages, o, p, t};
    double seen = 0;
    for (const int32_t position : positions) seen += position + 1;
    const Work work{4.0 * double(c.sequences) * c.length * H * D + 8.0 * T * H * D, 4.0 * seen * H * D};
    const auto cache = [&](int i) -> const KvPages& { return caches[size_t(i) % caches.size()]; };
    if (bench.wanted(title)) {
      bench.time_recorded(title, work, [&](int i) { ops.attend_paged(y, q, cache(i), batch, H, 0.1f); });
    }
    if (!bench.wanted(writing)) continue;
    const auto k = random_floats(ops, int64_t(T) * H * D), frequencies = random_floats(ops, D / 2);
    const Buffer<float> angles(ops, int64_t(T) * D, "bench");
    ops.rope_table(angles, p, frequencies, T, D / 2);
    bench.time_recorded(writing, {24.0 * T * H * D, 0},
                        [&](int i) { ops.rope_kv_write(cache(i), q, k, y, angles, H, D / 2, batch); });
  }
}

/// Ops that read their rows once and write them once.
void rows(Bench& bench) {
  Ops& ops = bench.ops();
  const int T = bench.tiny() ? 3 : 2304, C = bench.tiny() ? 96 : 4096;
  const double values = double(T) * C;
  const auto x = random_floats(ops, int64_t(T) * C), w = random_floats(ops, C);
  const Buffer<float> y(ops, int64_t(T) * C, "bench");
  const auto time = [&](const char* op, double bytes, const std::function<void(int)>& body) {
    const std::string title = std::string(op) + " " + std::to_string(T) + " x " + std::to_string(C);
    if (bench.wanted(title)) bench.time_recorded(title, {bytes, 0}, body);
  };
  time("rms_norm", 8 * values, [&](int) { ops.rms_norm(y, x, w, T, C, 1e-6f); });
  time("layer_norm", 8 * values, [&](int) { ops.layer_norm(y, x, w, w, T, C, 1e-6f); });
  time("gelu", 8 * values, [&](int) { ops.gelu(y, x, int64_t(values)); });
  time("silu_mul", 8 * values, [&](int) { ops.silu_mul(y, x, x, int64_t(values)); });
  time("rms_norm_dx", 12 * values, [&](int) { ops.rms_norm_dx(y, x, x, w, T, C, 1e-6f, Accumulate::yes); });
}

void vocabulary(Bench& bench) {
  Ops& ops = bench.ops();
  const int n = bench.tiny() ? 2 : 512, V = bench.tiny() ? 100 : 32000;
  const std::string title = "cross_entropy " + std::to_string(n) + " x " + std::to_string(V);
  if (bench.wanted(title)) {
    const auto logits = random_floats(ops, int64_t(n) * V);
    const Buffer<float> loss(ops, n, "bench");
    const auto targets = device_ints(ops, std::vector<int32_t>(size_t(n), 7));
    bench.time_recorded(title, {8.0 * n * V, 0}, [&](int) { ops.cross_entropy(loss, logits, logits, targets, n, V); });
  }
  for (const int rows : {1, 32}) {
    const std::string name = "sample " + std::to_string(rows) + " of " + std::to_string(V);
    if (!bench.wanted(name)) continue;
    const int64_t words = (V + 31) / 32;
    const auto logits = random_floats(ops, int64_t(rows) * V);
    const auto ids = device_ints(ops, std::vector<int32_t>(size_t(rows), 0));
    const auto generated = device_ints(ops, std::vector<int32_t>(size_t(rows * words), 0));
    std::vector<Ops::Draw> draws(static_cast<size_t>(rows));
    for (int i = 0; i < rows; ++i) {
      Ops::Draw& draw = draws[size_t(i)];
      draw.temperature = 1;
      draw.top_k = 50;
      draw.top_p = 0.9f;
      draw.penalty = 1.05f;
      draw.uniform = 0.5;
      draw.generated = reinterpret_cast<uint32_t*>(generated.get()) + i * words;
    }
    const Buffer<Ops::Draw> drawn(ops, rows, "bench");
    ops.upload(drawn, draws.data(), draws.size() * sizeof(Ops::Draw));
    bench.time_recorded(name, {4.0 * rows * V, 0}, [&](int) { ops.sample(ids, logits, drawn, rows, V, V); });
  }
}

}  // namespace
}  // namespace minigpt4::bench

int main(int count, char** arguments) {
  using namespace minigpt4::bench;
  const Settings settings = read_settings(count, arguments, kUsage);
  return run([&] {
    Bench bench(settings);
    products(bench);
    gradients(bench);
    vision(bench);
    paged_attention(bench);
    rows(bench);
    vocabulary(bench);
    if (bench.told() == 0) minigpt4::fail(minigpt4::code::argument, "no case's name has \"", settings.word, "\"");
  });
}
