#include "ops/plugin_ops.h"

#include <exception>

#include "core/error.h"
#include "ops/plugin_guard.h"

namespace minigpt4 {

using plugin::guarded;

/// The code as a text of static storage: what comes over the border is none.
void plugin::raise(const Failure& failure) {
  const std::string_view found = failure.code;
  for (const char* known :
       {code::no_backend, code::out_of_memory, code::cuda, code::unsupported, code::shape, code::argument}) {
    if (found == known) throw Error(known, failure.text);
  }
  throw Error(code::internal, failure.text);
}

PluginOps::PluginOps(const plugin::Table& table, int index, std::string name)
    : table_(table), name_(std::move(name)), ops_(guarded(table, [&] { return table.make(index); })) {}

std::string PluginOps::describe() const {
  return name_ + " " + guarded(table_, [&] { return ops_->describe(); });
}

bool PluginOps::is_device() const {
  return guarded(table_, [&] { return ops_->is_device(); });
}

size_t PluginOps::room() const {
  return guarded(table_, [&] { return ops_->room(); });
}

size_t PluginOps::taken(size_t bytes) const {
  return guarded(table_, [&] { return ops_->taken(bytes); });
}

size_t PluginOps::matrix_bytes(Type type, int64_t rows, int64_t cols) const {
  return guarded(table_, [&] { return ops_->matrix_bytes(type, rows, cols); });
}

std::vector<Holding> PluginOps::holdings() const {
  return guarded(table_, [&] { return ops_->holdings(); });
}

void* PluginOps::allocate(size_t bytes, const char* owner) {
  return guarded(table_, [&] { return ops_->allocate(bytes, owner); });
}

void PluginOps::release(void* memory) noexcept { ops_->release(memory); }

void PluginOps::replay(uint64_t key, const std::function<void()>& body) {
  std::exception_ptr thrown;  // by the body, on this side
  const std::function<void()> caught = [&] {
    try {
      body();
      return;
    } catch (...) {
      thrown = std::current_exception();
    }
    table_.stop();
  };
  try {
    guarded(table_, [&] { ops_->replay(key, caught); });
  } catch (...) {
    if (thrown) std::rethrow_exception(thrown);
    throw;
  }
}

void PluginOps::upload(void* to, const void* from_host, size_t bytes) {
  guarded(table_, [&] { ops_->upload(to, from_host, bytes); });
}
void PluginOps::download(void* to_host, const void* from, size_t bytes) {
  guarded(table_, [&] { ops_->download(to_host, from, bytes); });
}
void PluginOps::copy(void* to, const void* from, size_t bytes) {
  guarded(table_, [&] { ops_->copy(to, from, bytes); });
}
std::unique_ptr<Matrix> PluginOps::matrix(const MatrixView& view, const char* owner) {
  return guarded(table_, [&] { return ops_->matrix(view, owner); });
}
void PluginOps::products(std::span<const Product> of, const Rows& rows, int T) {
  guarded(table_, [&] { ops_->products(of, rows, T); });
}
void PluginOps::embed(float* y, const Matrix& w, const int32_t* ids, int T) {
  guarded(table_, [&] { ops_->embed(y, w, ids, T); });
}
void PluginOps::gather_rows(float* y, const float* x, const int32_t* rows, int n, int C) {
  guarded(table_, [&] { ops_->gather_rows(y, x, rows, n, C); });
}
void PluginOps::layer_norm(float* y, const float* x, const float* weight, const float* bias, int T, int C, float eps) {
  guarded(table_, [&] { ops_->layer_norm(y, x, weight, bias, T, C, eps); });
}
void PluginOps::rms_norm(float* y, const float* x, const float* weight, int T, int C, float eps) {
  guarded(table_, [&] { ops_->rms_norm(y, x, weight, T, C, eps); });
}
void PluginOps::gelu(float* y, const float* x, int64_t n) {
  guarded(table_, [&] { ops_->gelu(y, x, n); });
}
void PluginOps::silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  guarded(table_, [&] { ops_->silu_mul(y, gate, up, n); });
}
void PluginOps::rope_table(float* table, const int32_t* positions, const float* frequencies, int T, int half) {
  guarded(table_, [&] { ops_->rope_table(table, positions, frequencies, T, half); });
}
void PluginOps::rope(float* x, const float* table, int T, int H, int D, int half) {
  guarded(table_, [&] { ops_->rope(x, table, T, H, D, half); });
}
void PluginOps::kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) {
  guarded(table_, [&] { ops_->kv_write(cache, k, v, batch); });
}

void PluginOps::rope_kv_write(const KvPages& cache, float* q, float* k, const float* v, const float* table, int H,
                              int half, const RaggedBatch& batch) {
  guarded(table_, [&] { ops_->rope_kv_write(cache, q, k, v, table, H, half, batch); });
}
void PluginOps::kv_copy_page(const KvPages& cache, int to, int from) {
  guarded(table_, [&] { ops_->kv_copy_page(cache, to, from); });
}
void PluginOps::attend_paged(float* y, const float* q, const KvPages& cache, const RaggedBatch& batch, int H,
                             float scale) {
  guarded(table_, [&] { ops_->attend_paged(y, q, cache, batch, H, scale); });
}
void PluginOps::attend(const Attention& a) {
  guarded(table_, [&] { ops_->attend(a); });
}
void PluginOps::sample(int32_t* ids, const float* logits, const Draw* draws, int n, int V, int among) {
  guarded(table_, [&] { ops_->sample(ids, logits, draws, n, V, among); });
}
void PluginOps::patchify(float* y, const float* pixels, int B, int S, int p) {
  guarded(table_, [&] { ops_->patchify(y, pixels, B, S, p); });
}
void PluginOps::prepend_class(float* x, const float* patches, const float* class_token, const float* positions, int B,
                              int P, int C) {
  guarded(table_, [&] { ops_->prepend_class(x, patches, class_token, positions, B, P, C); });
}
void PluginOps::matmul_dx(float* dx, const Matrix& w, const float* dy, int T, Accumulate accumulate) {
  guarded(table_, [&] { ops_->matmul_dx(dx, w, dy, T, accumulate); });
}
void PluginOps::matmul_dw(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols) {
  guarded(table_, [&] { ops_->matmul_dw(dw, dy, x, T, rows, cols); });
}
void PluginOps::bias_db(float* db, const float* dy, int T, int C) {
  guarded(table_, [&] { ops_->bias_db(db, dy, T, C); });
}
void PluginOps::rms_norm_dx(float* dx, const float* dy, const float* x, const float* weight, int T, int C, float eps,
                            Accumulate accumulate) {
  guarded(table_, [&] { ops_->rms_norm_dx(dx, dy, x, weight, T, C, eps, accumulate); });
}
void PluginOps::silu_mul_dx(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) {
  guarded(table_, [&] { ops_->silu_mul_dx(dgate, dup, dy, gate, up, n); });
}
void PluginOps::rope_dx(float* dx, const float* table, int T, int H, int D, int half) {
  guarded(table_, [&] { ops_->rope_dx(dx, table, T, H, D, half); });
}
void PluginOps::attend_dx(const AttentionGradient& a) {
  guarded(table_, [&] { ops_->attend_dx(a); });
}
void PluginOps::cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* targets, int T, int V) {
  guarded(table_, [&] { ops_->cross_entropy(loss, dlogits, logits, targets, T, V); });
}
void PluginOps::scatter_rows(float* y, const float* x, const int32_t* rows, int n, int C) {
  guarded(table_, [&] { ops_->scatter_rows(y, x, rows, n, C); });
}
void PluginOps::fill(float* y, float value, int64_t n) {
  guarded(table_, [&] { ops_->fill(y, value, n); });
}
double PluginOps::squared_sum(const float* x, int64_t n) {
  return guarded(table_, [&] { return ops_->squared_sum(x, n); });
}
void PluginOps::adamw(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n, const Adamw& a) {
  guarded(table_, [&] { ops_->adamw(w, first_moment, second_moment, dw, n, a); });
}
void PluginOps::refill(Matrix& w, const float* values) {
  guarded(table_, [&] { ops_->refill(w, values); });
}
}  // namespace minigpt4
