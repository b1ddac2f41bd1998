// Times the CPU's ops at the shapes that matter: ViT-g's products and attention, Vicuna 7B's products when it decodes
// (T = 1, bound by reading weights) and when it reads a prompt, packing at load, and what training adds. Medians of
// several runs; beside the time the rate by the time that the threads were really on a core, which neighbours on the
// machine hardly change.
//
//   ops_bench [--level scalar|avx2|avx512|amx] [--threads N] [--only WORDS]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "ops/ops.h"

using namespace minigpt4;

namespace {

struct Settings {
  CpuOptions cpu;
  std::string only;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  explicit Bench(const Settings& settings) : settings_(settings), ops_(make_cpu_ops(settings.cpu)) {
    std::printf("%s\n%-44s %10s %10s %10s %16s\n", ops_->describe().c_str(), "op", "ms", "GFLOP/s", "GB/s",
                "a core: GFLOP/s, GB/s");
  }

  Ops& ops() { return *ops_; }
  bool wanted(const std::string& title) const { return title.find(settings_.only) != std::string::npos; }

  /// Runs once to warm up, then until half a second is full (3 to 50 times), and prints the median.
  void time(const std::string& title, double operations, double bytes, const std::function<void()>& run) {
    using Clock = std::chrono::steady_clock;
    run();
    std::vector<double> seconds, on_core;
    for (double all = 0; seconds.size() < 3 || (all < 0.5 && seconds.size() < 50); all += seconds.back()) {
      const auto start = Clock::now();
      const std::clock_t before = std::clock();
      run();
      on_core.push_back(double(std::clock() - before) / CLOCKS_PER_SEC);
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    const double wall = median(seconds), core = std::max(median(on_core), 1e-6);
    std::printf("%-44s %10.3f %10.1f %10.1f %10.1f %10.1f\n", title.c_str(), wall * 1e3, operations / wall / 1e9,
                bytes / wall / 1e9, operations / core / 1e9, bytes / core / 1e9);
    std::fflush(stdout);
  }

  float* floats(size_t n) {
    std::vector<float> values(n);
    for (float& value : values) value = float(rng_.uniform() * 2 - 1);
    float* memory = static_cast<float*>(ops_->allocate(n * sizeof(float), "bench"));
    ops_->upload(memory, values.data(), n * sizeof(float));
    return memory;
  }

  /// Random bytes whose 16-bit fields are finite: every other byte stays below the exponent of infinity.
  std::vector<uint8_t> bytes(size_t n) {
    std::vector<uint8_t> values(n);
    for (size_t i = 0; i + 8 <= n; i += 8) {
      const uint64_t word = rng_.next() & 0x3b3b3b3b3b3b3b3bu;
      std::memcpy(&values[i], &word, 8);
    }
    return values;
  }

  void matmul(Type type, int T, int64_t rows, int64_t cols) {
    const std::string title = std::string("matmul ") + name(type) + " " + std::to_string(T) + " x " +
                              std::to_string(cols) + " -> " + std::to_string(rows);
    if (!wanted(title)) return;
    const auto weights = bytes(size_t(rows) * row_bytes(type, uint64_t(cols)));
    const auto matrix = ops_->matrix({type, rows, cols, weights.data()}, "bench");
    float *x = floats(size_t(T * cols)), *y = floats(size_t(T * rows));
    time(title, 2.0 * T * double(rows) * double(cols), double(matrix->bytes),
         [&] { ops_->matmul(y, *matrix, x, nullptr, T, Accumulate::no); });
    ops_->release(x);
    ops_->release(y);
  }

  void matmul_dx(Type type, int T, int64_t rows, int64_t cols) {
    const std::string title = std::string("matmul_dx ") + name(type) + " " + std::to_string(T) + " x " +
                              std::to_string(rows) + " -> " + std::to_string(cols);
    if (!wanted(title)) return;
    const auto weights = bytes(size_t(rows) * row_bytes(type, uint64_t(cols)));
    const auto matrix = ops_->matrix({type, rows, cols, weights.data()}, "bench");
    float *dy = floats(size_t(T * rows)), *dx = floats(size_t(T * cols));
    time(title, 2.0 * T * double(rows) * double(cols), double(matrix->bytes),
         [&] { ops_->matmul_dx(dx, *matrix, dy, T, Accumulate::no); });
    ops_->release(dy);
    ops_->release(dx);
  }

  void matmul_dw(int T, int64_t rows, int64_t cols) {
    const std::string title =
        "matmul_dw " + std::to_string(T) + ", " + std::to_string(rows) + " x " + std::to_string(cols);
    if (!wanted(title)) return;
    float *dw = floats(size_t(rows * cols)), *dy = floats(size_t(T * rows)), *x = floats(size_t(T * cols));
    time(title, 2.0 * T * double(rows) * double(cols), double(rows * cols) * 8,
         [&] { ops_->matmul_dw(dw, dy, x, T, rows, cols); });
    for (float* memory : {dw, dy, x}) ops_->release(memory);
  }

  /// `sequences` of `length` rows, all of them queries.
  void attend_dx(int sequences, int length, int H, int kv_heads, int D) {
    const std::string title = "attend_dx " + std::to_string(sequences) + " x " + std::to_string(length) + ", " +
                              std::to_string(H) + "/" + std::to_string(kv_heads) + " x " + std::to_string(D);
    if (!wanted(title)) return;
    const size_t rows = size_t(sequences) * length, wide = rows * H * D, narrow = rows * kv_heads * D;
    std::vector<int32_t> offsets;
    for (int i = 0; i <= sequences; ++i) offsets.push_back(i * length);
    float *q = floats(wide), *k = floats(narrow), *v = floats(narrow), *dy = floats(wide), *dq = floats(wide),
          *dk = floats(narrow), *dv = floats(narrow);
    Ops::AttentionGradient a;
    a.q = q, a.k = k, a.v = v, a.dy = dy, a.dq = dq, a.dk = dk, a.dv = dv;
    a.q_offsets = a.k_offsets = offsets.data();
    a.sequences = sequences, a.H = H, a.kv_heads = kv_heads, a.D = D, a.scale = 1 / std::sqrt(float(D));
    time(title, 5.0 * sequences * H * length * double(length) * D, 0, [&] { ops_->attend_dx(a); });
    for (float* memory : {q, k, v, dy, dq, dk, dv}) ops_->release(memory);
  }

  void cross_entropy(int T, int V) {
    const std::string title = "cross_entropy " + std::to_string(T) + " x " + std::to_string(V);
    if (!wanted(title)) return;
    float *logits = floats(size_t(T) * V), *dlogits = floats(size_t(T) * V), *loss = floats(T);
    const std::vector<int32_t> targets(T, V / 2);
    time(title, 0, double(T) * V * 8, [&] { ops_->cross_entropy(loss, dlogits, logits, targets.data(), T, V); });
    for (float* memory : {logits, dlogits, loss}) ops_->release(memory);
  }

  void optimizer(int64_t n) {
    float *w = floats(n), *m = floats(n), *v = floats(n), *dw = floats(n);
    ops_->fill(v, 1, n);
    const auto each = [&](const std::string& title, double bytes, const std::function<void()>& run) {
      if (wanted(title)) time(title + " " + std::to_string(n), 0, bytes, run);
    };
    each("adamw", double(n) * 28, [&] { ops_->adamw(w, m, v, dw, n, {.rate = 1e-4}); });
    each("squared_sum", double(n) * 4, [&] { ops_->squared_sum(dw, n); });
    for (float* memory : {w, m, v, dw}) ops_->release(memory);
  }

  void pack(Type type, int64_t rows, int64_t cols) {
    const std::string title =
        std::string("pack ") + name(type) + " " + std::to_string(rows) + " x " + std::to_string(cols);
    if (!wanted(title)) return;
    const auto weights = bytes(size_t(rows) * row_bytes(type, uint64_t(cols)));
    time(title, 0, double(weights.size()), [&] { ops_->matrix({type, rows, cols, weights.data()}, "bench"); });
  }

  void attend(int B, int Tq, int Tk, int H, int D) {
    const std::string title = "attend " + std::to_string(B) + " x " + std::to_string(H) + " x " + std::to_string(Tq) +
                              " x " + std::to_string(Tk) + " x " + std::to_string(D);
    if (!wanted(title)) return;
    const int C = H * D;
    float *q = floats(size_t(B) * Tq * C), *k = floats(size_t(B) * Tk * C), *v = floats(size_t(B) * Tk * C),
          *y = floats(size_t(B) * Tq * C);
    Ops::Attention a;
    a.y = y, a.q = q, a.k = k, a.v = v;
    a.q_stride = a.k_stride = a.v_stride = C;
    a.B = B, a.Tq = Tq, a.Tk = Tk, a.H = H, a.D = D, a.scale = 1 / std::sqrt(float(D));
    time(title, 4.0 * B * H * Tq * double(Tk) * D, 0, [&] { ops_->attend(a); });
    for (float* memory : {q, k, v, y}) ops_->release(memory);
  }

  /// The last `rows` rows of one sequence of `length`.
  void attend_paged(Type type, int rows, int length, int H, int kv_heads, int D) {
    const std::string title = std::string("attend_paged ") + name(type) + " " + std::to_string(rows) + " of " +
                              std::to_string(length) + ", " + std::to_string(H) + "/" + std::to_string(kv_heads) +
                              " x " + std::to_string(D);
    if (!wanted(title)) return;
    const int pages = (length + kPagePositions - 1) / kPagePositions;
    const size_t bytes = size_t(pages) * kv_heads * kv_head_bytes(type, D);
    KvPages cache{ops_->allocate(bytes, "bench"), ops_->allocate(bytes, "bench"), type, pages, kv_heads, D};
    std::vector<int32_t> positions, table, all{0, length}, last{0, rows};
    for (int i = 0; i < length; ++i) positions.push_back(i);
    for (int i = 0; i < pages; ++i) table.push_back(i);
    float *q = floats(size_t(rows) * H * D), *y = floats(size_t(rows) * H * D),
          *kv = floats(size_t(length) * kv_heads * D);
    ops_->kv_write(cache, kv, kv, {length, 1, pages, all.data(), positions.data(), table.data()});
    const RaggedBatch batch{rows, 1, pages, last.data(), positions.data() + length - rows, table.data()};
    const double seen = double(rows) * (length - rows / 2.0);
    time(title, 4.0 * H * D * seen, double(bytes) * 2, [&] { ops_->attend_paged(y, q, cache, batch, H, 0.1f); });
    for (void* memory : {cache.k, cache.v, static_cast<void*>(q), static_cast<void*>(y), static_cast<void*>(kv)})
      ops_->release(memory);
  }

  void rows() {
    const int T = 257, C = 6144;
    const size_t n = size_t(T) * C;
    float *x = floats(n), *y = floats(n), *w = floats(C);
    const auto each = [&](const std::string& title, const std::function<void()>& run) {
      if (wanted(title)) time(title, 0, double(n) * 8, run);
    };
    each("gelu 257 x 6144", [&] { ops_->gelu(y, x, int64_t(n)); });
    each("silu_mul 257 x 6144", [&] { ops_->silu_mul(y, x, x, int64_t(n)); });
    each("layer_norm 257 x 6144", [&] { ops_->layer_norm(y, x, w, w, T, C, 1e-6f); });
    each("rms_norm 257 x 6144", [&] { ops_->rms_norm(y, x, w, T, C, 1e-6f); });
    for (float* memory : {x, y, w}) ops_->release(memory);
  }

 private:
  Settings settings_;
  std::unique_ptr<Ops> ops_;
  Rng rng_{1};
};

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--level") {
      settings.cpu.level = value;
    } else if (option == "--threads") {
      settings.cpu.threads = std::atoi(value.c_str());
    } else if (option == "--only") {
      settings.only = value;
    } else {
      fail(code::argument, "options are --level, --threads and --only, found ", option);
    }
  }
  return settings;
}

void run(const Settings& settings) {
  Bench bench(settings);
  for (Type type : {Type::F32, Type::F16}) {  // ViT-g: qkv, first and second half of the perceptron
    bench.matmul(type, 257, 4224, 1408);
    bench.matmul(type, 257, 6144, 1408);
    bench.matmul(type, 257, 1408, 6144);
  }
  bench.attend(1, 257, 257, 16, 88);
  bench.attend(1, 32, 257, 12, 64);
  for (Type type : {Type::Q4_0, Type::Q8_0, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::F16}) {  // Vicuna 7B
    bench.matmul(type, 1, 11008, 4096);
    bench.matmul(type, 1, 4096, 11008);
    bench.matmul(type, 8, 11008, 4096);
    bench.matmul(type, 128, 11008, 4096);
  }
  bench.matmul(Type::Q4_0, 1, 256, 256);  // what handing out pieces costs
  for (Type type : {Type::F32, Type::F16, Type::Q8_0}) {
    bench.attend_paged(type, 1, 2000, 32, 32, 128);
    bench.attend_paged(type, 1, 2000, 32, 4, 64);
    bench.attend_paged(type, 256, 512, 32, 32, 128);
    bench.attend_paged(type, 256, 512, 32, 4, 64);
  }
  bench.rows();
  for (Type type : {Type::F32, Type::F16, Type::Q4_0, Type::Q8_0, Type::Q4_K, Type::Q6_K}) {  // training, Vicuna 7B
    bench.matmul(type, 512, 4096, 11008);
    bench.matmul_dx(type, 512, 4096, 11008);
    bench.matmul_dx(type, 512, 11008, 4096);
  }
  bench.matmul_dx(Type::Q4_0, 32, 32000, 4096);  // logits of a caption
  bench.matmul_dw(512, 4096, 768);               // the projection
  bench.attend_dx(4, 128, 32, 32, 128);
  bench.attend_dx(1, 2048, 32, 32, 128);
  bench.attend_dx(4, 128, 32, 4, 64);
  bench.cross_entropy(64, 32000);
  bench.optimizer(4096 * 768);
  for (Type type : {Type::Q4_0, Type::Q8_0, Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::F16})
    bench.pack(type, 11008, 4096);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code(), error.what());
    return 1;
  }
}
