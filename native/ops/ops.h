// The interface of everything that computes: the models are written against it, a backend implements it.
//
// An op is a mathematical statement: inputs, outputs and sizes are its arguments, nothing is allocated, no state is
// kept but the backend's threads (or stream) and workspace. Matrices of activations are row-major float32, one row a
// token or patch; T counts rows, C is the width. All pointers but those of `MatrixView` and `upload`/`download` are
// the backend's own memory (`allocate`). One thread calls a backend at a time.
//
// The same result, whoever else is there: a row of any op's output depends on that row's inputs alone, not on T, on
// its place in the batch, on the number of threads, or (CPU) on the instruction set level; but for float weights at level
// "amx", whose sums are not the other levels' (see products).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/dtype.h"
#include "core/row_groups.h"

namespace minigpt4 {

/// A weight as the file has it: rows (outputs) of `cols` values each, blocks of `type` one after the other.
struct MatrixView {
  Type type = Type::F32;
  int64_t rows = 0, cols = 0;
  const void* data = nullptr;  // rows * row_bytes(type, cols) bytes of host memory
};

/// A weight as a file has it that was made for the CPU: in groups of rows, see cpu_row_groups().
struct GroupedView {
  Type type = Type::F32;
  int64_t rows = 0, cols = 0;
  const void* data = nullptr;
  size_t bytes = 0;                    // from there on
  std::shared_ptr<const void> memory;  // as long as it is held, they stay
};

/// A weight in the backend's own layout. Made by Ops::matrix, holds no reference to the view it was made from; by
/// Ops::mapped_matrix, holds that view's memory.
class Matrix {
 public:
  virtual ~Matrix() = default;
  Type type = Type::F32;  // of the values it stands for
  int64_t rows = 0, cols = 0;
  size_t bytes = 0;  // in the backend's memory, or in the view's
};

/// Positions that a page of the KV cache holds.
inline constexpr int kPagePositions = 16;
/// Pages that so many positions of one sequence take.
inline int pages_for(int positions) { return (positions + kPagePositions - 1) / kPagePositions; }

/// One layer's keys and values in pages of `type`: k is [pages][kv_heads][head_dim][kPagePositions], so that the scores of a
/// page are one product with 16 columns; v is [pages][kv_heads][kPagePositions][head_dim]. F32, F16, or Q8_0 (the CPU alone):
/// then a head's codes in a page, one byte each in that order, are followed by its scales as float16,
/// [blocks of 32 of head_dim][kPagePositions], and by nothing up to a multiple of 64 bytes.
struct KvPages {
  void* k = nullptr;
  void* v = nullptr;
  Type type = Type::F16;
  int pages = 0, kv_heads = 0, head_dim = 0;
};

/// Bytes of one head's keys, or values, in a page.
inline size_t kv_head_bytes(Type type, int head_dim) {
  const size_t values = size_t(kPagePositions) * size_t(head_dim);
  if (type != Type::Q8_0) return values * info(type).block_bytes;
  const size_t scales = (size_t(head_dim) + 31) / 32 * kPagePositions * sizeof(uint16_t);
  return (values + scales + 63) / 64 * 64;
}

/// Rows of several sequences laid end to end. Sequence b owns rows [offsets[b], offsets[b+1]); row t stands at position
/// positions[t] of its sequence, positions of a sequence rising by one; position p of sequence b lives in page
/// page_table[b * max_pages + p / kPagePositions]. Arrays are the backend's memory.
struct RaggedBatch {
  int rows = 0, sequences = 0, max_pages = 0;
  const int32_t* offsets = nullptr;     // [sequences + 1]
  const int32_t* positions = nullptr;   // [rows]
  const int32_t* page_table = nullptr;  // [sequences][max_pages]
};

enum class Accumulate { no, yes };  // y = …, or y += …

class Ops {
 public:
  virtual ~Ops() = default;
  /// "cpu avx512, 2 threads".
  virtual std::string describe() const = 0;
  /// False where the backend's memory is the host's.
  virtual bool is_device() const { return false; }

  // ---- memory

  /// 64-byte aligned; `owner` is the name under which the memory is reported. Error ERR_OUT_OF_MEMORY.
  virtual void* allocate(size_t bytes, const char* owner) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* to, const void* from_host, size_t bytes) = 0;
  virtual void download(void* to_host, const void* from, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual std::vector<Holding> holdings() const = 0;
  /// Bytes that may still be allocated; the largest number there is where only trying tells (the CPU).
  virtual size_t room() const { return SIZE_MAX; }
  /// What an allocation of so many bytes takes of room(): a device hands its memory out in units.
  virtual size_t taken(size_t bytes) const { return bytes; }

  /// Runs `body`, which calls ops of this backend alone (no allocation, upload or download) and, for the same key, always
  /// the same ones with the same arguments: what differs from time to time lies in the backend's memory. A device records
  /// it once and repeats the record.
  virtual void replay(uint64_t key, const std::function<void()>& body) = 0;

  // ---- weights

  /// Brings a weight into the backend's layout. Errors: ERR_OUT_OF_MEMORY, ERR_UNSUPPORTED (type).
  virtual std::unique_ptr<Matrix> matrix(const MatrixView& view, const char* owner) = 0;
  /// A weight that lies in this backend's layout already and is used where it lies: nothing is copied. Null from a backend
  /// of another layout. Error ERR_FILE_FORMAT (bytes or place are not what the sizes ask for).
  virtual std::unique_ptr<Matrix> mapped_matrix(const GroupedView&) { return nullptr; }
  /// Bytes that matrix() takes for a weight of these sizes.
  virtual size_t matrix_bytes(Type type, int64_t rows, int64_t cols) const {
    return size_t(rows) * row_bytes(type, uint64_t(cols));
  }

  // ---- linear algebra

  /// What products read: the rows of x[T, C], or what becomes of them on the way in, which is never written anywhere else.
  struct Rows {
    enum class Form { plain, rms_norm, layer_norm, gelu, silu_mul };
    const float* x = nullptr;
    Form form = Form::plain;
    const float* weight = nullptr;  // [C], of a norm
    const float* bias = nullptr;    // [C], of layer_norm
    float eps = 0;                  // of a norm
    const float* up = nullptr;      // [T, C], of silu_mul: the rows are silu(x) · up
  };
  struct Product {
    float* y = nullptr;  // [T, w->rows]
    const Matrix* w = nullptr;
    const float* bias = nullptr;  // [w->rows], may be null
    Accumulate accumulate = Accumulate::no;
  };
  /// Every y (+)= rows · wᵀ + bias, for weights of the same cols, whatever their types: the same bits as one after the
  /// other, but the rows are made and rounded once. No y overlaps what the rows are made of or another y.
  /// F32, F16 and BF16 weights: on the CPU float32 products of float32 activations, at level "amx" products of their bf16
  /// halves that are short of them by at most 3 · 2^-16 (F32), 2 · 2^-16 (F16) and 2^-16 (BF16) of each; CUDA rounds
  /// activations to the weights' type (F32: nothing) and adds float32. Quantized weights: activations rounded to 8 bits a block of 32, exact
  /// integer dot products within a block, blocks added in one fixed order.
  virtual void products(std::span<const Product> of, const Rows& rows, int T) = 0;
  /// y[T, rows] (+)= x[T, cols] · wᵀ + bias[rows] (bias may be null): one product of plain rows.
  void matmul(float* y, const Matrix& w, const float* x, const float* bias, int T, Accumulate accumulate) {
    const Product product{y, &w, bias, accumulate};
    products({&product, 1}, {x}, T);
  }
  /// y[T, cols] = rows of w, dequantized, by id. ids[T] lie in [0, w.rows): the caller has checked.
  virtual void embed(float* y, const Matrix& w, const int32_t* ids, int T) = 0;
  /// y[n, C] = x[rows[i], :].
  virtual void gather_rows(float* y, const float* x, const int32_t* rows, int n, int C) = 0;

  // ---- normalisation and activation functions

  /// y = (x - mean) / sqrt(variance + eps) * weight + bias, per row of C. y may be x.
  virtual void layer_norm(float* y, const float* x, const float* weight, const float* bias, int T, int C,
                          float eps) = 0;
  /// y = x / sqrt(mean(x²) + eps) * weight, per row of C. y may be x.
  virtual void rms_norm(float* y, const float* x, const float* weight, int T, int C, float eps) = 0;
  /// The exact GELU, x · ½(1 + erf(x / √2)), n values; y may be x.
  virtual void gelu(float* y, const float* x, int64_t n) = 0;
  /// y = gate · sigmoid(gate) · up, n values; y may be gate or up.
  virtual void silu_mul(float* y, const float* gate, const float* up, int64_t n) = 0;

  // ---- rotary positions

  /// table[T, half, 2] = (cos, sin) of positions[t] · frequencies[i], the product in float32.
  virtual void rope_table(float* table, const int32_t* positions, const float* frequencies, int T, int half) = 0;
  /// Rotates the adjacent pairs (2i, 2i + 1), i < half, of every head of x[T, H, D] in place; 2·half <= D, the rest
  /// stays.
  virtual void rope(float* x, const float* table, int T, int H, int D, int half) = 0;

  // ---- attention

  /// Stores k[T, kv_heads · head_dim] and v, converted to the cache's type, at the batch's positions.
  virtual void kv_write(const KvPages& cache, const float* k, const float* v, const RaggedBatch& batch) = 0;
  /// rope of q[T, H, D] and k[T, kv_heads, D] by the table of `half` angles a row, in place, then kv_write of k and v: the same
  /// bits in one launch.
  virtual void rope_kv_write(const KvPages& cache, float* q, float* k, const float* v, const float* table, int H,
                             int half, const RaggedBatch& batch) = 0;
  /// Copies page `from` to page `to` in one layer's cache (copy on write of a shared page).
  virtual void kv_copy_page(const KvPages& cache, int to, int from) = 0;
  /// y[T, H, D]: softmax(q·kᵀ · scale)·v over positions 0..positions[t] of the row's own sequence; head h reads
  /// key-value head h / (H / kv_heads). q[T, H, D]. The cache holds the rows' own keys already (kv_write).
  virtual void attend_paged(float* y, const float* q, const KvPages& cache, const RaggedBatch& batch, int H,
                            float scale) = 0;
  /// B independent full attentions: y[B, Tq, H, D] = softmax(q·kᵀ · scale)·v, q[B, Tq, …], k and v[B, Tk, …] with a
  /// row's heads side by side and rows `*_stride` floats apart (so q, k, v may lie in one [T, 3C] buffer); y is dense.
  struct Attention {
    float* y = nullptr;
    const float *q = nullptr, *k = nullptr, *v = nullptr;
    int64_t q_stride = 0, k_stride = 0, v_stride = 0;
    int B = 0, Tq = 0, Tk = 0, H = 0, D = 0;
    float scale = 1;
  };
  virtual void attend(const Attention& a) = 0;

  // ---- the next token

  /// How one row's next token is drawn. Lies in the backend's memory.
  struct Draw {
    float temperature = 0;          // 0: the best logit, lowest id on a tie; of the rest only the penalty acts
    int32_t top_k = 0;              // 0: off; what ties with the last one stays
    float top_p = 1;                // 1: off
    float min_p = 0;                // 0: off
    float penalty = 1;              // of repetition; 1: off
    double uniform = 0;             // of [0, 1): where in the distribution the draw falls
    uint32_t* generated = nullptr;  // [(V + 31) / 32], a bit an id: those already generated
  };
  /// ids[i] is drawn from the first `among` of logits[i, V] (not changed): repetition penalty over the generated ids, each
  /// once; temperature, top-k, softmax, top-p, min-p; then the ids in ascending order share [0, 1) by their weights. Its bit
  /// in `generated` is set. -1 - j where logit j, the first of such, is not finite (nothing is set then). ids[n]: the
  /// backend's memory.
  virtual void sample(int32_t* ids, const float* logits, const Draw* draws, int n, int V, int among) = 0;

  // ---- pictures

  /// y[B, (S/p)², 3·p·p] from pixels[B, 3, S, S]: patches in raster order, each as a convolution's weight lies:
  /// (channel, row, column).
  virtual void patchify(float* y, const float* pixels, int B, int S, int p) = 0;
  /// x[B, P + 1, C] from patches[B, P, C]: class token first, then the patches, position rows [P + 1, C] added.
  virtual void prepend_class(float* x, const float* patches, const float* class_token, const float* positions, int B,
                             int P, int C) = 0;

  // ---- gradients: d… is the gradient with respect to …. Those of activations are assigned unless said otherwise,
  // those of parameters are added to what is there.

  /// dx[T, cols] (+)= dy[T, rows] · w with w's values dequantized: float32 products (CPU level "amx": as with F32 weights),
  /// added in one written order.
  virtual void matmul_dx(float* dx, const Matrix& w, const float* dy, int T, Accumulate accumulate) = 0;
  /// dw[rows, cols] += dyᵀ · x of dy[T, rows] and x[T, cols], one row t after the other: the parts of a batch, given in
  /// order, leave the very bits of the whole batch.
  virtual void matmul_dw(float* dw, const float* dy, const float* x, int T, int64_t rows, int64_t cols) = 0;
  /// db[C] += dy[0, :] + dy[1, :] + …, one row after the other, likewise.
  virtual void bias_db(float* db, const float* dy, int T, int C) = 0;
  /// dx[T, C] (+)= gradient of rms_norm at x. dx may be dy.
  virtual void rms_norm_dx(float* dx, const float* dy, const float* x, const float* weight, int T, int C, float eps,
                           Accumulate accumulate) = 0;
  /// Gradients of silu_mul at (gate, up), n values; dgate and dup may each be any of the inputs of the same index.
  virtual void silu_mul_dx(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                           int64_t n) = 0;
  /// Turns dx[T, H, D] back by the table's angles, in place: the gradient of rope.
  virtual void rope_dx(float* dx, const float* table, int T, int H, int D, int half) = 0;
  /// The gradient of causal attention over ragged sequences. Sequence b has the queries [q_offsets[b], q_offsets[b+1])
  /// of q[Tq, H, D] and the keys [k_offsets[b], k_offsets[b+1]) of k and v[Tk, kv_heads, D]; its queries stand at its
  /// last positions, so of n keys and m <= n queries query i sees the keys 0 … n - m + i. dq[Tq, H, D]; dk and dv[Tq,
  /// kv_heads, D] are of the same last positions: what stands before them is not asked for. The gradients' memory is
  /// none of the inputs'. Offsets: the backend's memory.
  struct AttentionGradient {
    float *dq = nullptr, *dk = nullptr, *dv = nullptr;
    const float *dy = nullptr, *q = nullptr, *k = nullptr, *v = nullptr;
    const int32_t *q_offsets = nullptr, *k_offsets = nullptr;  // [sequences + 1]
    int sequences = 0, H = 0, kv_heads = 0, D = 0;
    float scale = 1;
  };
  virtual void attend_dx(const AttentionGradient& a) = 0;
  /// loss[t] = -log softmax(logits[t, :])[targets[t]], and dlogits[T, V] = softmax(logits) less 1 at the target (null:
  /// the losses alone). dlogits may be logits. targets lie in [0, V): the caller has checked.
  virtual void cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* targets, int T,
                             int V) = 0;

  // ---- rows and the optimizer

  /// y[rows[i], :] = x[i, :], i < n; no row twice.
  virtual void scatter_rows(float* y, const float* x, const int32_t* rows, int n, int C) = 0;
  /// y = value, n values.
  virtual void fill(float* y, float value, int64_t n) = 0;
  /// Σ x² in double, in one order whatever the threads.
  virtual double squared_sum(const float* x, int64_t n) = 0;
  /// One step of AdamW (Loshchilov and Hutter, arXiv:1711.05101) as PyTorch computes it, in float32. The gradient is
  /// gradient_scale · dw; `step` counts from 1.
  struct Adamw {
    double rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0, gradient_scale = 1;
    int64_t step = 1;
  };
  virtual void adamw(float* w, float* first_moment, float* second_moment, const float* dw, int64_t n,
                     const Adamw& a) = 0;
  /// New values[rows, cols] (the backend's memory) for a matrix that matrix() made. Error ERR_ARGUMENT where it is not
  /// of type F32.
  virtual void refill(Matrix& w, const float* values) = 0;
};

struct CpuOptions {
  int threads = 0;    // 0: one per core this process may run on
  std::string level;  // "": MINIGPT4_CPU_LEVEL if set, else the best this CPU has; or a name of cpu_levels()
};

/// Levels that this build has and this CPU can run, slowest first.
std::vector<std::string> cpu_levels();
/// Errors: ERR_NO_BACKEND for a level that is unknown or that this CPU lacks (message lists those it has).
std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options);
/// How the CPU lays out weights: the same at every level, so that files can hold them. Lives as long as the program.
const RowGroups& cpu_row_groups() noexcept;

/// Units a second, of several passes. Neighbours on the machine can only take away, so the best is the limit.
struct PeakRate {
  double median = 0, best = 0;
};

/// What this machine does at most at one level with so many threads together. Operations: a multiply-add counts as two.
struct MachineRates {
  std::string level;
  int threads = 0;
  PeakRate read;  // bytes of a buffer beyond the caches, in pages as an arena gives them
  PeakRate fma;   // float32 multiply-adds
  // products of the vector unit and of the matrix unit, where there is one
  std::optional<PeakRate> dot, tile_int8, tile_bf16;
  double waited_share = -1;  // of the threads' time, waiting for a core; negative: the system does not tell
};

/// Measures for some seconds. Errors: as make_cpu_ops; ERR_ARGUMENT (passes < 1, read_bytes below 8 MiB),
/// ERR_OUT_OF_MEMORY.
MachineRates measure_machine(const CpuOptions& options, size_t read_bytes, int passes);

struct DeviceOptions {
  std::string device = "auto";  // "auto", "cpu", "cuda", "cuda:N"
  CpuOptions cpu;
};
/// The backend that `device` names. Error ERR_NO_BACKEND says what is missing.
std::unique_ptr<Ops> make_ops(const DeviceOptions& options);

}  // namespace minigpt4
