// Launches that overlap: what the emulator says of kernels that do not wait for the launch before, and that the launches of a
// decoding step, all of them, are such launches where the device can.
#include <cstdlib>
#include <memory>
#include <numeric>

#include "device_case.h"
#include "ops/cuda/devices.h"
#include "simt/context.h"
#include "simt/faults.h"
#include "simt_case.h"

using namespace minigpt4;
using namespace simt_case;
using ops_case::OnDevice;

namespace {

__global__ void waits(float* y) {
  gpu::wait_for_previous();
  y[threadIdx.x] = 1;
}
__global__ void never_waits(float* y) { y[threadIdx.x] = 1; }
__global__ void half_waits(float* y) {
  if (threadIdx.x >= 16) return;
  gpu::wait_for_previous();
  y[threadIdx.x] = 1;
}
__global__ void says_whether_it_waits(int* y) { *y = gpu::can_wait_for_previous(); }

struct Configured {
  explicit Configured(const char* words) { simt::configure(words); }
  ~Configured() {
    simt::configure("capability=9.0");
    while (cudaGetLastError() != cudaSuccess) {
    }
  }
};

/// What the environment asks of backends made while it lives; what was asked of the whole process, afterwards.
struct Wanted {
  explicit Wanted(const char* word) {
    const char* before = std::getenv("MINIGPT4_CUDA_OVERLAP");
    before_ = before ? before : "";
    setenv("MINIGPT4_CUDA_OVERLAP", word, 1);
  }
  ~Wanted() { setenv("MINIGPT4_CUDA_OVERLAP", before_.c_str(), 1); }
  std::string before_;
};

/// Names of the kernels launched while it lives, those that overlap and those that do not.
class Launches {
 public:
  Launches() : before_(simt::events.on_launch_begin) {
    current_ = this;
    simt::events.on_launch_begin = [](const simt::LaunchInfo& launch) {
      (launch.overlapping ? current_->overlapping : current_->others).emplace_back(launch.kernel);
      if (current_->before_) current_->before_(launch);
    };
  }
  ~Launches() { simt::events.on_launch_begin = before_; }
  Launches(const Launches&) = delete;
  Launches& operator=(const Launches&) = delete;

  std::vector<std::string> overlapping, others;

 private:
  inline static Launches* current_ = nullptr;
  void (*before_)(const simt::LaunchInfo&);
};

std::string listed(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += name + "; ";
  return all;
}

/// The ops of a decoding step with one layer, in the order of models/llama.cpp and engine/next_tokens.cpp, for rows of
/// sequences with a page each.
struct Step {
  static constexpr int C = 64, H = 2, D = 32, half = 16, V = 96;
  Ops& ops;
  Type type, cache_type;
  int rows;
  std::unique_ptr<Matrix> table = weight(V), square = weight(C);
  OnDevice<float> x{ops, at(C)}, q{ops, at(C)}, k{ops, at(C)}, v{ops, at(C)}, attended{ops, at(C)}, last{ops, at(C)},
      logits{ops, at(V)}, rotation{ops, at(2 * half)}, norm{ops, size_t(C), 1.0f}, frequencies{ops, size_t(half), 0.5f};
  OnDevice<int32_t> ids{ops, at(1), 3}, positions{ops, at(1), 17}, picked{ops, counted(rows)},
      offsets{ops, counted(rows + 1)}, pages{ops, counted(2 * rows)}, out{ops, at(1)};
  OnDevice<uint8_t> keys{ops, cache_bytes()}, values{ops, cache_bytes()};
  OnDevice<uint32_t> generated{ops, size_t(rows) * 3};
  OnDevice<Ops::Draw> draws{ops, drawn()};

  size_t at(int columns) const { return size_t(rows) * size_t(columns); }
  size_t cache_bytes() const { return size_t(2 * rows) * kPagePositions * C * sizeof(float); }
  static std::vector<int32_t> counted(int n) {
    std::vector<int32_t> all(static_cast<size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  std::vector<Ops::Draw> drawn() const {
    std::vector<Ops::Draw> all(static_cast<size_t>(rows));
    for (int i = 0; i < rows; ++i) all[size_t(i)].generated = generated + 3 * i;
    return all;
  }
  std::unique_ptr<Matrix> weight(int n) const {
    const std::vector<uint8_t> data = ops_case::weights(type, n, C, 7);
    return ops.matrix({type, n, C, data.data()}, "test");
  }
  void multiply(float* y, const Matrix& w, const Ops::Rows& by) {
    const Ops::Product product{y, &w};
    ops.products({&product, 1}, by, rows);
  }
  void run() {
    const KvPages cache{keys, values, cache_type, 2 * rows, H, D};
    const RaggedBatch batch{rows, rows, 2, offsets, positions, pages};
    Ops::Rows normed{x};
    normed.form = Ops::Rows::Form::rms_norm, normed.weight = norm, normed.eps = 1e-5f;
    ops.embed(x, *table, ids, rows);
    ops.rope_table(rotation, positions, frequencies, rows, half);
    multiply(q, *square, normed);
    multiply(k, *square, normed);
    multiply(v, *square, normed);
    ops.rope_kv_write(cache, q, k, v, rotation, H, half, batch);
    ops.attend_paged(attended, q, cache, batch, H, 0.2f);
    multiply(x, *square, {attended});
    ops.gather_rows(last, x, picked, rows, C);
    normed.x = last;
    multiply(logits, *table, normed);
    ops.sample(out, logits, draws, rows, V, V);
  }
};

}  // namespace

TEST("simt overlap: a kernel that never waits, and one whose threads do not all") {
  const Device<float> y(32);
  float* to = y;
  for (const Order order : orders) {
    const Options options{.order = order, .seed = 3};
    const auto launched = [&](auto kernel, bool overlapping) {
      return findings_of(options, [&] {
        CHECK_EQUAL(gpu::launch(kernel, {.grid = 2, .block = 32, .overlapping = overlapping}, to), cudaSuccess);
      });
    };
    CHECK(launched(waits, true).empty());
    CHECK(launched(waits, false).empty());
    CHECK(launched(never_waits, false).empty());
    CHECK(launched(half_waits, false).empty());
    const std::vector<Finding> none = launched(never_waits, true), half = launched(half_waits, true);
    CHECK_EQUAL(none.size(), 1u);
    CHECK(none[0].kind == FindingKind::overlap && none[0].text.find("never waited") != std::string::npos);
    CHECK_EQUAL(none[0].count, 64u);
    CHECK(none[0].kernel.find("never_waits") != std::string::npos);
    CHECK_EQUAL(half.size(), 1u);
    CHECK(half[0].kind == FindingKind::overlap && half[0].thread >= 16);
    CHECK_EQUAL(half[0].count, 32u);
  }
}

TEST("simt overlap: such a launch fails, also as a part of a recorded step") {
  const Device<float> y(32);
  float* to = y;
  simt::set_options({});
  simt::take_findings();
  CHECK_EQUAL(gpu::launch(never_waits, {.grid = 1, .block = 32, .overlapping = true}, to), cudaErrorLaunchFailure);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  CHECK_EQUAL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  CHECK_EQUAL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  CHECK_EQUAL(gpu::launch(never_waits, {.grid = 1, .block = 32, .stream = stream, .overlapping = true}, to),
              cudaSuccess);
  CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  CHECK_EQUAL(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  CHECK_EQUAL(cudaGraphLaunch(executable, stream), cudaErrorLaunchFailure);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  while (cudaGetLastError() != cudaSuccess) {
  }
  CHECK_EQUAL(simt::take_findings().size(), 2u);
}

TEST("simt overlap: devices before 9.0 are not asked to, and their kernels say that they do not wait") {
  const Device<float> y(32);
  const Device<int> answer(1);
  float* to = y;
  int* asked = answer;
  const auto run = [&] { return gpu::launch(waits, {.grid = 1, .block = 32, .overlapping = true}, to); };
  {
    const Configured words("capability=8.9");
    CHECK_EQUAL(run(), cudaErrorNotSupported);
    CHECK_EQUAL(gpu::launch(says_whether_it_waits, {.grid = 1, .block = 1}, asked), cudaSuccess);
    CHECK_EQUAL(answer.values()[0], 0);
  }
  CHECK_EQUAL(run(), cudaSuccess);
  CHECK_EQUAL(gpu::launch(says_whether_it_waits, {.grid = 1, .block = 1}, asked), cudaSuccess);
  CHECK_EQUAL(answer.values()[0], 1);
}

TEST("simt overlap: all launches of a decoding step do where the device can, and none where it cannot") {
  device_case::device();
  const Wanted on("on");
  for (const Type type : {Type::Q4_0, Type::F16, Type::F32}) {
    for (const Type cache_type : {Type::F16, Type::F32}) {
      for (const int rows : {1, 3, 40}) {
        const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
        Step step{*ops, type, cache_type, rows};
        const Launches seen;
        step.run();
        // products of F32 weights with many rows take the kernel of training, which does not wait
        const bool plain = type == Type::F32 && rows > 32;
        CHECK(seen.overlapping.size() >= (plain ? 9u : 14u));
        CHECK_EQUAL(seen.others.size(), plain ? 5u : 0u);
        if (!plain) CHECK_EQUAL(listed(seen.others), "");
      }
    }
  }
  const auto none_overlaps = [] {
    const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
    Step step{*ops, Type::Q4_0, Type::F16, 3};
    const Launches seen;
    step.run();
    CHECK_EQUAL(listed(seen.overlapping), "");
    CHECK(seen.others.size() >= 14);
  };
  {
    const Configured words("capability=8.9");
    none_overlaps();
  }
  {
    const Wanted off("off");
    none_overlaps();
  }
  const Wanted unknown("yes");
  CHECK_ERROR(code::argument, "on or off, found \"yes\"", (void)cuda::make_device_ops(0));
}
