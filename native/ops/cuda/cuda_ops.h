// The Ops of a CUDA device: one stream, the device's memory, pinned staging, a workspace and the recorded launches. Members are
// defined by family, one .cu file each.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/error.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/gpu.h"
#include "ops/cuda/prepared_rows.h"
#include "ops/ops.h"

namespace minigpt4 {
class ThreadPool;
}

namespace minigpt4::cuda {

struct Recording;  // recording.h: the launches of one key of replay()
class Staging;     // staging.h: pinned host memory that uploads and downloads go through

/// A weight on the device, in the layout of its type: quantized_layout.h, half_layout.h; F32 row-major as in the file.
struct DeviceMatrix final : Matrix {
  std::shared_ptr<DeviceMemory> memory;  // a matrix may outlive the backend
  uint8_t* data = nullptr;
  ~DeviceMatrix() override { memory->give(data); }
};

/// Throws ERR_OUT_OF_MEMORY or ERR_CUDA with what was being done and the runtime's words, unless `status` is success.
void check(cudaError_t status, const char* doing);

class CudaOps final : public Ops {
 public:
  /// Device `index` of this machine. Errors: ERR_NO_BACKEND (no driver, an old one, no device, no such device), ERR_CUDA.
  explicit CudaOps(int index);
  ~CudaOps() override;

  std::string describe() const override;
  bool is_device() const override { return true; }

  void* allocate(size_t bytes, const char* owner) override;
  void release(void* memory) noexcept override;
  void upload(void* to, const void* from_host, size_t bytes) override;
  void download(void* to_host, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  std::vector<Holding> holdings() const override;
  size_t room() const override;
  size_t taken(size_t bytes) const override;
  void replay(uint64_t key, const std::function<void()>& body) override;

  std::unique_ptr<Matrix> matrix(const MatrixView& view, const char* owner) override;
  size_t matrix_bytes(Type type, int64_t rows, int64_t cols) const override;

  void products(std::span<const Product> of, const Rows& rows, int T) override;
  void embed(float* y, const Matrix& w, const int32_t* ids, int T) override;
  void gather_rows(float* y, const float* x, const int32_t* rows, int n, int C) override;

  void layer_norm(float* y, const float* x, const float* weight, const float* bias, int T, int C, float eps) override;
  void rms_norm(float* y, const float* x, const float* weight, int T, int C, float eps) override;
  void gelu(float* y, const float* x, int64_t n) override;
  void silu_mul(float* y, const float* gate, const float* up, int64_t n) override;

  void rope_table(float* table, const int32_t* positions, const float* frequencies, int T, int half) override;
  void rope(float* x, const float* table, int T, int H, int D, int half) override;

  void kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) override;
  void rope_kv_write(const KvPages& cache, float* q, float* k, const float* v, const float* table, int H, int half,
                     const RaggedBatch& batch) override;
  void kv_copy_page(const KvPages& cache, int to, int from) override;
  void attend_paged(float* y, const float* q, const KvPages& cache, const RaggedBatch& batch, int H,
                    float scale) override;
  void attend(const Attention& a) override;

  void sample(int32_t* ids, const float* logits, const Draw* draws, int n, int V, int among) override;

  void patchify(float* y, const float* pixels, int B, int S, int p) override;
  void prepend_class(float* x, const float* patches, const float* class_token, const float* positions, int B, int P,
                     int C) override;

  void matmul_dx(float* dx, const Matrix& w, const float* dy, int T, Accumulate accumulate) override;
  void matmul_dw(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols) override;
  void bias_db(float* db, const float* dy, int T, int C) override;
  void rms_norm_dx(float* dx, const float* dy, const float* x, const float* weight, int T, int C, float eps,
                   Accumulate accumulate) override;
  void silu_mul_dx(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) override;
  void rope_dx(float* dx, const float* table, int T, int H, int D, int half) override;
  void attend_dx(const AttentionGradient& a) override;
  void cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* targets, int T, int V) override;

  void scatter_rows(float* y, const float* x, const int32_t* rows, int n, int C) override;
  void fill(float* y, float value, int64_t n) override;
  double squared_sum(const float* x, int64_t n) override;
  void adamw(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, const Adamw& a) override;
  void refill(Matrix& w, const float* values) override;

 private:
  /// Scratch of an op on the device, by what it holds; two kinds do not overlap. Contents last until the next call for the
  /// same kind. Grows when more is asked for (which drops the recorded launches); never within a recording.
  enum class Scratch { rows, row_scales, partial_sums, reduction, count };
  void* scratch(Scratch kind, size_t bytes);

  /// Makes this backend's device the calling thread's: a thread may serve models on several.
  void choose() const;

  /// Launches on the stream; `doing` is the op's name for a message. A grid of no blocks is no launch.
  template <class... Parameters, class... Arguments>
  void run(const char* doing, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
           Arguments&&... arguments) {
    start(doing, kernel, gpu::Launch{grid, block, shared, stream_}, std::forward<Arguments>(arguments)...);
  }
  /// The same for kernels whose first act is gpu::wait_for_previous(): where the device can, the launch's way to it passes
  /// while the one before ends. For the many short launches of a decoding step.
  template <class... Parameters, class... Arguments>
  void run_overlapping(const char* doing, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                       Arguments&&... arguments) {
    start(doing, kernel, gpu::Launch{grid, block, shared, stream_, overlaps_}, std::forward<Arguments>(arguments)...);
  }
  template <class... Parameters, class... Arguments>
  void start(const char* doing, void (*kernel)(Parameters...), const gpu::Launch& how, Arguments&&... arguments) {
    if (how.grid.x == 0 || how.grid.y == 0 || how.grid.z == 0) return;
    choose();
    check(gpu::launch(kernel, how, std::forward<Arguments>(arguments)...), doing);
  }

  // products.cu: the rows in the form that weights of a type read, in the workspace
  PreparedRows prepare(const Rows& rows, RowKind kind, int T, int64_t cols);
  // matmul_quantized.cu, matmul_half.cu: products with weights of one type, kProductsAtOnce at most; matmul_f32.cu: one
  void matmul_quantized(std::span<const Product> of, const PreparedRows& x);
  void matmul_half(std::span<const Product> of, const PreparedRows& x);
  void matmul_f32(const Product& p, const PreparedRows& x);
  // embed.cu, pack_quantized.cu, pack_half.cu: host rows into the device's layout; `to` is host memory
  static void pack_quantized(uint8_t* to, const MatrixView& view);
  static void pack_half(uint8_t* to, const MatrixView& view);
  // matmul_dx_quantized.cu, matmul_dx_half.cu, matmul_dx_f32.cu
  void matmul_dx_quantized(float* dx, const DeviceMatrix& w, const float* dy, int T, bool accumulate);
  void matmul_dx_half(float* dx, const DeviceMatrix& w, const float* dy, int T, bool accumulate);
  void matmul_dx_f32(float* dx, const DeviceMatrix& w, const float* dy, int T, bool accumulate);

  // replay.cu
  void record(Recording& recording, const std::function<void()>& body);
  /// Error ERR_INTERNAL while launches are recorded: what `doing` names cannot be part of a record.
  void not_in_recording(const char* doing) const;

  int index_;
  int multiprocessors_ = 1;
  bool overlaps_ = false;  // a launch may begin while the one before ends
  std::string name_;
  std::shared_ptr<DeviceMemory> memory_;
  struct Stream {
    cudaStream_t handle = nullptr;
    ~Stream() {
      if (handle) cudaStreamDestroy(handle);
    }
    operator cudaStream_t() const { return handle; }
  } stream_;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<ThreadPool> packers_;  // threads that bring weights into the device's layout; made with the first one
  struct Piece {
    void* data = nullptr;
    size_t bytes = 0;
  };
  Piece scratch_[size_t(Scratch::count)];
  bool recording_ = false;
  std::map<uint64_t, std::unique_ptr<Recording>> recordings_;
};

}  // namespace minigpt4::cuda
