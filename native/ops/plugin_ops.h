// A backend that lives in a plug-in, with its errors thrown as this side's own.
#pragma once

#include <string>

#include "ops/plugin.h"

namespace minigpt4 {

class PluginOps final : public Ops {
 public:
  /// Device `index` of the plug-in, `name` as describe() says it ("cuda:0"). Throws what the plug-in's make() does.
  PluginOps(const plugin::Table& table, int index, std::string name);

  std::string describe() const override;
  bool is_device() const override;

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
  const plugin::Table& table_;
  std::string name_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace minigpt4
