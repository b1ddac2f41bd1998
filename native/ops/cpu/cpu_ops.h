// The Ops of the CPU: shares each op among threads in pieces and hands the pieces to the level's kernels. Members are
// defined by family: cpu_ops.cpp (memory, weights), matmul.cpp, rows.cpp, kv.cpp, attention.cpp, sample.cpp,
// matmul_gradient.cpp, attention_gradient.cpp, training_rows.cpp (the other gradients, loss, optimizer).
#pragma once

#include "core/thread_pool.h"
#include "ops/cpu/packed_matrix.h"
#include "ops/cpu/product.h"
#include "ops/cpu/workspace.h"
#include "ops/ops.h"

namespace minigpt4::cpu {

class CpuOps final : public Ops {
 public:
  CpuOps(const Level& level, int threads);

  std::string describe() const override;

  void* allocate(size_t bytes, const char* owner) override;
  void release(void* memory) noexcept override;
  void upload(void* to, const void* from_host, size_t bytes) override;
  void download(void* to_host, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  std::vector<Holding> holdings() const override;
  void replay(uint64_t, const std::function<void()>& body) override { body(); }

  std::unique_ptr<Matrix> matrix(const MatrixView& view, const char* owner) override;
  std::unique_ptr<Matrix> mapped_matrix(const GroupedView& view) override {
    return std::make_unique<PackedMatrix>(view);
  }
  size_t matrix_bytes(Type type, int64_t rows, int64_t cols) const override {
    return PackedMatrix::bytes_of(type, rows, cols);
  }

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

  /// Error ERR_ARGUMENT where `among` is below 1.
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
  using Pieces = std::function<void(int64_t begin, int64_t end, int thread)>;
  /// body over [0, count), one call for `piece` things, each of which touches `values` values.
  void rows_in_pieces(int64_t count, int64_t values, const Pieces& body);
  /// Fills the packed matrix with rows as a MatrixView has them.
  void pack(PackedMatrix& w, const void* rows);
  /// turn(t, kv head) for each, then its keys and values into the cache.
  template <class Turn>
  void write_heads(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch, Turn turn);
  struct RoundedRows;
  struct PreparedRows;
  /// Rows [first, first + T) for all products, in the workspace.
  PreparedRows prepare(std::span<const Product> of, const Rows& rows, int first, int T);
  /// How a product with T rows is cut, and the tiles that they are.
  Cut cut_of(const PackedMatrix& w, int T) const;
  int tiles_of(const PackedMatrix& w, int T) const;
  struct Share;
  /// A product with prepared rows, the op's rows from `first` on; its first piece is yet to be said.
  Share share_of(const Product& product, const PreparedRows& rows, int first) const;
  void compute(const Share& share, int64_t piece, float* scratch) const;

  const Level& level_;
  std::shared_ptr<Arena> arena_;  // shared with the matrices, which may outlive this
  ThreadPool threads_;
  Runs runs_;  // of a product
  Workspace workspace_;
};

}  // namespace minigpt4::cpu
