#include "train/llama_backward.h"

#include <algorithm>
#include <cmath>

#include "models/linear.h"

namespace minigpt4 {
namespace {

// Logits are computed for so many rows at a time: 128 KB a row with a vocabulary of 32,000.
constexpr int kLogitRows = 256;

}  // namespace

LlamaBackward::LlamaBackward(Ops& ops, const LlamaConfig& c, const LlamaWeights& weights, int max_rows)
    : ops_(ops),
      c_(c),
      w_(weights),
      llama_(ops, c, weights, {0, c.depth}, max_rows, 1),
      // sequences of half a page each still fit
      cache_(KvCache::passing(ops, c, 2 * pages_for(max_rows))),
      kept_(ops, int64_t(c.depth) * max_rows * c.width, "training"),
      logits_(ops, int64_t(std::min(kLogitRows, max_rows)) * c.vocab, "training"),
      losses_(ops, kLogitRows, "training"),
      last_(ops, int64_t(kLogitRows) * c.width, "training"),
      dlast_(ops, int64_t(kLogitRows) * c.width, "training"),
      ids_(ops, max_rows, "training"),
      rows_(ops, kLogitRows, "training"),
      targets_(ops, kLogitRows, "training"),
      picked_(ops, max_rows, "training"),
      rotation_(ops, int64_t(max_rows) * c.rope_dims, "training"),
      x_(ops, int64_t(max_rows) * c.width, "training"),
      middle_(ops, int64_t(max_rows) * c.width, "training"),
      dh_(ops, int64_t(max_rows) * c.width, "training"),
      dattended_(ops, int64_t(max_rows) * c.heads * c.head_dim, "training"),
      dq_(ops, int64_t(max_rows) * c.heads * c.head_dim, "training"),
      dk_(ops, int64_t(max_rows) * c.kv_heads * c.head_dim, "training"),
      dv_(ops, int64_t(max_rows) * c.kv_heads * c.head_dim, "training"),
      dhidden_(ops, int64_t(max_rows) * c.mlp, "training") {}

void LlamaBackward::embed(float* y, const int32_t* ids, int T) {
  ops_.upload(ids_, ids, size_t(T) * sizeof(int32_t));
  llama_.embed(y, ids_, T);
}

/// All rows of every sequence, or those from its first asked one on, with their positions.
LlamaBackward::Laid LlamaBackward::lay(const LlamaRows& rows, bool from_first, int max_pages) {
  std::vector<int32_t> offsets{0}, positions;
  for (int b = 0; b < rows.sequences(); ++b) {
    const int length = rows.offsets[size_t(b) + 1] - rows.offsets[size_t(b)];
    for (int t = from_first ? rows.first_rows[size_t(b)] : 0; t < length; ++t) positions.push_back(t);
    offsets.push_back(int32_t(positions.size()));
  }
  Laid laid{Buffer<int32_t>(ops_, int64_t(offsets.size()), "training"),
            Buffer<int32_t>(ops_, std::max<int64_t>(1, int64_t(positions.size())), "training"),
            {}};
  ops_.upload(laid.offsets, offsets.data(), offsets.size() * sizeof(int32_t));
  ops_.upload(laid.positions, positions.data(), positions.size() * sizeof(int32_t));
  laid.batch = {int(positions.size()), rows.sequences(), max_pages, laid.offsets, laid.positions, page_table_};
  return laid;
}

bool LlamaBackward::run(float* x, const LlamaRows& rows, std::vector<float>& losses, float* dx, const Stop& stop) {
  const int T = rows.rows(), C = c_.width;
  int max_pages = 0;
  for (int b = 0; b < rows.sequences(); ++b)
    max_pages = std::max(max_pages, pages_for(rows.offsets[size_t(b) + 1] - rows.offsets[size_t(b)]));
  std::vector<int32_t> table(size_t(rows.sequences()) * size_t(max_pages), 0);
  std::vector<int32_t> picked, place(size_t(T), -1);  // place: of a row among the asked ones
  for (int b = 0, page = 0; b < rows.sequences(); ++b) {
    const int first = rows.offsets[size_t(b)], end = rows.offsets[size_t(b) + 1];
    for (int i = 0; i < pages_for(end - first); ++i) table[size_t(b) * size_t(max_pages) + size_t(i)] = page++;
    for (int t = first + rows.first_rows[size_t(b)]; t < end; ++t) {
      place[size_t(t)] = int32_t(picked.size());
      picked.push_back(t);
    }
  }
  page_table_ = Buffer<int32_t>(ops_, int64_t(table.size()), "training");
  ops_.upload(page_table_, table.data(), table.size() * sizeof(int32_t));

  const Laid all = lay(rows, false, max_pages);
  if (!llama_.forward(x, all.batch, cache_, {}, stop, dx ? kept_.get() : nullptr)) return false;

  // rows before the first picture have a loss but no gradient that anybody asks for
  std::vector<int32_t> with, without, places;
  for (int t = 0; t < T; ++t) {
    if (rows.targets[size_t(t)] < 0) continue;
    if (dx && place[size_t(t)] >= 0) {
      with.push_back(t);
      places.push_back(place[size_t(t)]);
    } else {
      without.push_back(t);
    }
  }
  losses.assign(size_t(T), 0.0f);
  if (!losses_of(x, without, rows, losses, nullptr, {}, stop)) return false;
  const int R = int(picked.size());
  if (!dx || R == 0) return true;
  ops_.fill(dx, 0, int64_t(R) * C);
  if (!losses_of(x, with, rows, losses, dx, places, stop)) return false;

  ops_.upload(picked_, picked.data(), picked.size() * sizeof(int32_t));
  const Laid asked = lay(rows, true, max_pages);
  ops_.rope_table(rotation_, asked.positions, llama_.frequencies_, R, c_.rope_dims / 2);
  for (int i = c_.depth - 1; i >= 0; --i) {
    if (stop && stop()) return false;
    layer_backward(i, dx, all, asked);
  }
  return true;
}

/// Losses of rows of x; where dx is not null, their gradients at places[i] of dx. False: stopped early.
bool LlamaBackward::losses_of(const float* x, const std::vector<int32_t>& rows, const LlamaRows& of,
                              std::vector<float>& losses, float* dx, const std::vector<int32_t>& places,
                              const Stop& stop) {
  const int C = c_.width;
  std::vector<int32_t> targets;
  std::vector<float> found;
  for (size_t at = 0; at < rows.size(); at += kLogitRows) {
    if (stop && stop()) return false;
    const int n = int(std::min<size_t>(kLogitRows, rows.size() - at));
    targets.clear();
    for (int i = 0; i < n; ++i) targets.push_back(of.targets[size_t(rows[at + size_t(i)])]);
    ops_.upload(rows_, rows.data() + at, size_t(n) * sizeof(int32_t));
    ops_.upload(targets_, targets.data(), size_t(n) * sizeof(int32_t));
    ops_.gather_rows(last_, x, rows_, n, C);
    const Ops::Product product{logits_, &w_.output()};
    ops_.products({&product, 1}, rms_normed(last_, w_.norm, c_.eps), n);
    ops_.cross_entropy(losses_, dx ? logits_.get() : nullptr, logits_, targets_, n, c_.vocab);
    found.resize(size_t(n));
    ops_.download(found.data(), losses_, size_t(n) * sizeof(float));
    for (int i = 0; i < n; ++i) losses[size_t(rows[at + size_t(i)])] = found[size_t(i)];
    if (!dx) continue;
    ops_.matmul_dx(dlast_, w_.output(), logits_, n, Accumulate::no);
    ops_.rms_norm_dx(dlast_, dlast_, last_, w_.norm.weight.get(), n, C, c_.eps, Accumulate::no);
    ops_.upload(rows_, places.data() + at, size_t(n) * sizeof(int32_t));
    ops_.scatter_rows(dx, dlast_, rows_, n, C);
  }
  return true;
}

/// dx[R, C]: in, the gradient with respect to the layer's output; out, to its input. What the forward pass did is done
/// again from the layer's input: keys and values of all rows (the last layer's are still there), everything else of the
/// asked ones.
void LlamaBackward::layer_backward(int i, float* dx, const Laid& all, const Laid& asked) {
  const int T = all.batch.rows, R = asked.batch.rows, C = c_.width, D = c_.head_dim, half = c_.rope_dims / 2;
  const float scale = 1 / std::sqrt(float(D));
  const LlamaLayer& l = w_.layers[size_t(i)];
  const KvPages& pages = cache_.layer(i);
  const float* input = kept_ + int64_t(i) * T * C;
  Llama& f = llama_;  // scratch of the forward pass

  // x = x + out(attention(rope(q), rope(k), v)), all of norm(x)
  if (i + 1 < c_.depth) {
    multiply(ops_, {{f.k_, &l.k}, {f.v_, &l.v}}, rms_normed(input, l.attention_norm, c_.eps), T);
    ops_.rope(f.k_, f.rotation_, T, c_.kv_heads, D, half);
    ops_.kv_write(pages, f.k_, f.v_, all.batch);
  }
  ops_.gather_rows(x_, input, picked_, R, C);
  multiply(ops_, {{f.q_, &l.q}}, rms_normed(x_, l.attention_norm, c_.eps), R);
  ops_.rope(f.q_, rotation_, R, c_.heads, D, half);
  ops_.attend_paged(f.attended_, f.q_, pages, asked.batch, c_.heads, scale);
  ops_.copy(middle_, x_, size_t(R) * size_t(C) * sizeof(float));
  multiply(ops_, {{middle_, &l.out, Accumulate::yes}}, {f.attended_}, R);
  // x = x + down(silu(gate(norm(x))) · up(norm(x)))
  multiply(ops_, {{f.gate_, &l.gate}, {f.up_, &l.up}}, rms_normed(middle_, l.mlp_norm, c_.eps), R);

  // and back, the last line first
  ops_.matmul_dx(dhidden_, *l.down.weight, dx, R, Accumulate::no);
  ops_.silu_mul_dx(f.gate_, f.up_, dhidden_, f.gate_, f.up_, int64_t(R) * c_.mlp);
  ops_.matmul_dx(dh_, *l.gate.weight, f.gate_, R, Accumulate::no);
  ops_.matmul_dx(dh_, *l.up.weight, f.up_, R, Accumulate::yes);
  ops_.rms_norm_dx(dx, dh_, middle_, l.mlp_norm.weight.get(), R, C, c_.eps, Accumulate::yes);

  ops_.matmul_dx(dattended_, *l.out.weight, dx, R, Accumulate::no);
  ops_.attend_dx({dq_, dk_, dv_, dattended_, f.q_, f.k_, f.v_, asked.offsets, all.offsets, all.batch.sequences,
                  c_.heads, c_.kv_heads, D, scale});
  ops_.rope_dx(dq_, rotation_, R, c_.heads, D, half);
  ops_.rope_dx(dk_, rotation_, R, c_.kv_heads, D, half);
  ops_.matmul_dx(dh_, *l.q.weight, dq_, R, Accumulate::no);
  ops_.matmul_dx(dh_, *l.k.weight, dk_, R, Accumulate::yes);
  ops_.matmul_dx(dh_, *l.v.weight, dv_, R, Accumulate::yes);
  ops_.rms_norm_dx(dx, dh_, x_, l.attention_norm.weight.get(), R, C, c_.eps, Accumulate::yes);
}

}  // namespace minigpt4
