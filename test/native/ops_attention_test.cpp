// Both attentions and the KV cache's pages, against double precision.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "check.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

/// softmax(q·kᵀ·scale)·v of one query and head in double; error gets what float32 may differ by.
/// key(i), value(i) point at D floats.
template <class Row>
void attend_exactly(const float* q, Row key, Row value, int n, int D, double scale, double* y, double* error) {
  std::vector<double> p(static_cast<size_t>(n));
  double largest = -INFINITY, sum = 0, score_error = 0;
  for (int i = 0; i < n; ++i) {
    double dot = 0, size = 0;
    for (int d = 0; d < D; ++d) dot += double(q[d]) * key(i)[d], size += std::fabs(double(q[d]) * key(i)[d]);
    p[i] = dot * scale;
    largest = std::max(largest, p[i]);
    // the query's scaling and a chain over D; in a cache of Q8_0 the scales' products, here and in what is expected
    score_error = std::max(score_error, (D + 4) * kRounding * size * scale);
  }
  for (double& each : p) each = std::exp(each - largest), sum += each;
  for (int d = 0; d < D; ++d) {
    double size = 0;
    y[d] = 0;
    for (int i = 0; i < n; ++i) y[d] += p[i] / sum * value(i)[d], size += p[i] / sum * std::fabs(value(i)[d]);
    // A weight's relative error: the score's and the largest one's, the difference's rounding (scores up to 60 apart
    // matter), 4 of exp, then the chain over the positions, the sum of lanes and the division; the same for the sum. Of
    // Q8_0 also a scale's product, here and in what is expected.
    error[d] = size * (4 * score_error + 2 * 60 * kRounding + (2 * n + 22) * kRounding);
  }
}

struct Dense {
  int B, Tq, Tk, H, D;
};

}  // namespace

TEST("ops: attention of all queries to all keys") {
  for (const Dense& c : {Dense{1, 257, 257, 2, 88}, Dense{2, 32, 257, 3, 16}, Dense{1, 1, 1, 1, 7},
                         Dense{2, 13, 40, 2, 64}, Dense{1, 5, 17, 1, 100}}) {
    // q, k and v in one buffer where they have as many rows, as a model has them after one product
    const int C = c.H * c.D;
    const bool joined = c.Tq == c.Tk;
    const int64_t stride = joined ? 3 * C : C;
    const Floats q = normal(size_t(c.B) * c.Tq * stride, 71), k = normal(size_t(c.B) * c.Tk * stride, 72),
                 v = normal(size_t(c.B) * c.Tk * stride, 73);
    const Floats &k_from = joined ? q : k, &v_from = joined ? q : v;
    const int64_t k_at = joined ? C : 0, v_at = joined ? 2 * C : 0;
    const float scale = 1 / std::sqrt(float(c.D));
    const Floats found = on_every_level("attend", [&](Ops& ops) {
      const OnDevice<float> q_on(ops, q), k_on(ops, k), v_on(ops, v), y(ops, size_t(c.B) * c.Tq * C);
      Ops::Attention a;
      a.y = y;
      a.q = q_on;
      a.k = joined ? q_on + C : static_cast<float*>(k_on);
      a.v = joined ? q_on + 2 * C : static_cast<float*>(v_on);
      a.q_stride = a.k_stride = a.v_stride = stride;
      a.B = c.B, a.Tq = c.Tq, a.Tk = c.Tk, a.H = c.H, a.D = c.D, a.scale = scale;
      ops.attend(a);
      return y.values();
    });
    std::vector<double> expected(found.size()), allowed(found.size());
    for (int b = 0; b < c.B; ++b) {
      for (int t = 0; t < c.Tq; ++t) {
        for (int h = 0; h < c.H; ++h) {
          const auto row = [&](const Floats& of, int64_t at) {
            return [&of, at, stride, b, &c, h](int i) {
              return &of[size_t((int64_t(b) * c.Tk + i) * stride + at + h * c.D)];
            };
          };
          const size_t to = size_t(((b * c.Tq + t) * c.H + h) * c.D);
          const std::function<const float*(int)> key = row(k_from, k_at), value = row(v_from, v_at);
          attend_exactly(&q[size_t((int64_t(b) * c.Tq + t) * stride + h * c.D)], key, value, c.Tk, c.D, scale,
                         &expected[to], &allowed[to]);
        }
      }
    }
    near("attend", found, expected, allowed);
  }
}

namespace {

/// Sequences of these lengths, of which the last `fresh` rows each are the batch; the rest is in the cache already.
struct Paged {
  Type type;
  int H, kv_heads, D;
  std::vector<int> lengths, fresh;
};

struct PagedData {
  int pages = 0, max_pages = 0, rows = 0;
  std::vector<int32_t> table;
  std::vector<Floats> k, v, q;  // of whole sequences
};

PagedData paged_data(const Paged& c) {
  PagedData data;
  for (int length : c.lengths)
    data.max_pages = std::max(data.max_pages, (length + kPagePositions - 1) / kPagePositions);
  const int sequences = int(c.lengths.size());
  data.pages = sequences * data.max_pages + 3;
  // pages out of order, all over the cache
  std::vector<int32_t> order(static_cast<size_t>(data.pages));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(81);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.next() % i]);
  data.table.assign(order.begin(), order.begin() + sequences * data.max_pages);
  for (int b = 0; b < sequences; ++b) {
    const size_t length = size_t(c.lengths[b]);
    data.k.push_back(normal(length * c.kv_heads * c.D, 90 + uint64_t(b)));
    data.v.push_back(normal(length * c.kv_heads * c.D, 190 + uint64_t(b)));
    data.q.push_back(normal(length * c.H * c.D, 290 + uint64_t(b)));
  }
  return data;
}

/// Puts rows [from, to) of the given sequences through kv_write and, if y is asked for, attend_paged.
Floats forward(Ops& ops, const Paged& c, const PagedData& data, const KvPages& cache, const std::vector<int>& sequences,
               const std::vector<int>& from, const std::vector<int>& to, bool attend) {
  std::vector<int32_t> offsets{0}, positions, table;
  Floats k, v, q;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const int b = sequences[i];
    for (int p = from[i]; p < to[i]; ++p) positions.push_back(p);
    offsets.push_back(int32_t(positions.size()));
    const auto append = [&](Floats& all, const Floats& one, int width) {
      all.insert(all.end(), one.begin() + int64_t(from[i]) * width, one.begin() + int64_t(to[i]) * width);
    };
    append(k, data.k[b], c.kv_heads * c.D);
    append(v, data.v[b], c.kv_heads * c.D);
    append(q, data.q[b], c.H * c.D);
    table.insert(table.end(), data.table.begin() + b * data.max_pages, data.table.begin() + (b + 1) * data.max_pages);
  }
  const OnDevice<int32_t> offsets_on(ops, offsets), positions_on(ops, positions), table_on(ops, table);
  const OnDevice<float> k_on(ops, k), v_on(ops, v), q_on(ops, q), y(ops, q.size());
  const RaggedBatch batch{
      int(positions.size()), int(sequences.size()), data.max_pages, offsets_on, positions_on, table_on};
  ops.kv_write(cache, k_on, v_on, batch);
  if (!attend) return {};
  ops.attend_paged(y, q_on, cache, batch, c.H, 1 / std::sqrt(float(c.D)));
  return y.values();
}

/// A cache whose every byte is set: reading a position that was not written shows as NaN.
struct Cache {
  OnDevice<uint8_t> k, v;
  KvPages pages;
  static size_t bytes(const Paged& c, const PagedData& data) {
    return size_t(data.pages) * c.kv_heads * kv_head_bytes(c.type, c.D);
  }
  Cache(Ops& ops, const Paged& c, const PagedData& data)
      : k(ops, bytes(c, data), uint8_t(0xff)),
        v(ops, bytes(c, data), uint8_t(0xff)),
        pages{static_cast<uint8_t*>(k), static_cast<uint8_t*>(v), c.type, data.pages, c.kv_heads, c.D} {}
};

std::vector<int> all(size_t n) {
  std::vector<int> of(n);
  std::iota(of.begin(), of.end(), 0);
  return of;
}

std::vector<int> starts(const Paged& c) {
  std::vector<int> of;
  for (size_t b = 0; b < c.lengths.size(); ++b) of.push_back(c.lengths[b] - c.fresh[b]);
  return of;
}

const std::vector<Paged>& paged_cases() {
  static const std::vector<Paged> cases{
      {Type::F16, 4, 4, 64, {70, 33, 16, 1}, {1, 33, 3, 1}},
      {Type::F32, 6, 2, 88, {40, 41, 17}, {37, 1, 17}},
      {Type::F16, 8, 1, 20, {5, 50}, {5, 20}},
      {Type::F16, 2, 2, 128, {300}, {29}},
      {Type::Q8_0, 4, 4, 64, {70, 33, 16, 1}, {1, 33, 3, 1}},
      {Type::Q8_0, 6, 2, 88, {40, 41, 17}, {37, 1, 17}},
      {Type::Q8_0, 8, 1, 20, {5, 50}, {5, 20}},
      {Type::Q8_0, 2, 2, 128, {300}, {29}},
  };
  return cases;
}

/// What is left of values in a cache of that type: Q8_0 by blocks of 32 of a head's D, each with a scale of its own.
void round_to(Type type, Floats& values, int D) {
  if (type == Type::F16) {
    for (float& each : values) each = half_to_float(float_to_half(each));
  }
  if (type != Type::Q8_0) return;
  for (size_t head = 0; head < values.size(); head += size_t(D)) {
    for (int b = 0; b < D; b += 32) {
      const std::span<float> block(&values[head + size_t(b)], size_t(std::min(32, D - b)));
      float most = 0;
      for (float each : block) most = std::max(most, std::fabs(each));
      const float scale = half_to_float(float_to_half(most / 127.0f));
      const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
      for (float& each : block) each = scale * std::clamp(std::nearbyint(each * inverse), -127.0f, 127.0f);
    }
  }
}

}  // namespace

TEST("ops: attention over pages") {
  for (const Paged& c : paged_cases()) {
    const PagedData data = paged_data(c);
    const std::vector<int> sequences = all(c.lengths.size()), zero(sequences.size(), 0), from = starts(c);
    const Floats found = on_every_level("attend_paged", [&](Ops& ops) {
      const Cache cache(ops, c, data);
      forward(ops, c, data, cache.pages, sequences, zero, from, false);
      return forward(ops, c, data, cache.pages, sequences, from, c.lengths, true);
    });
    std::vector<double> expected(found.size()), allowed(found.size());
    size_t to = 0;
    for (int b : sequences) {
      Floats k = data.k[b], v = data.v[b];
      for (Floats* each : {&k, &v}) round_to(c.type, *each, c.D);
      for (int p = from[b]; p < c.lengths[b]; ++p) {
        for (int h = 0; h < c.H; ++h, to += c.D) {
          const int kv_head = h / (c.H / c.kv_heads);
          const std::function<const float*(int)> key = [&](int i) {
            return &k[size_t((i * c.kv_heads + kv_head) * c.D)];
          };
          const std::function<const float*(int)> value = [&](int i) {
            return &v[size_t((i * c.kv_heads + kv_head) * c.D)];
          };
          attend_exactly(&data.q[b][size_t((p * c.H + h) * c.D)], key, value, p + 1, c.D,
                         double(1 / std::sqrt(float(c.D))), &expected[to], &allowed[to]);
        }
      }
    }
    CHECK_EQUAL(to, found.size());
    near("attend_paged", found, expected, allowed);
  }
}

TEST("ops: attention over pages does not depend on the batch or on chunks") {
  for (const Paged& c : paged_cases()) {
    const PagedData data = paged_data(c);
    for (const std::string& level : cpu_levels()) {
      Ops& ops = cpu(level, 2);
      const Cache together(ops, c, data), alone(ops, c, data);
      const std::vector<int> sequences = all(c.lengths.size()), zero(sequences.size(), 0);
      const Floats expected = forward(ops, c, data, together.pages, sequences, zero, c.lengths, true);
      size_t at = 0;
      for (int b : sequences) {  // each sequence by itself, row by row
        for (int p = 0; p < c.lengths[b]; ++p, at += size_t(c.H) * c.D) {
          const Floats row(expected.begin() + int64_t(at), expected.begin() + int64_t(at) + c.H * c.D);
          if (!same_bits("attend_paged on " + level + ", a row alone",
                         forward(ops, c, data, alone.pages, {b}, {p}, {p + 1}, true), row))
            return;
        }
      }
    }
  }
}

TEST("ops: copying a page") {
  const Paged& c = paged_cases()[0];
  PagedData data = paged_data(c);
  Ops& ops = cpu(cpu_levels().back(), 2);
  const Cache cache(ops, c, data);
  const Floats expected = forward(ops, c, data, cache.pages, {0}, {0}, {c.lengths[0]}, true);
  // The sequence's second page moves to one that nobody has.
  int32_t unused = 0;
  while (std::find(data.table.begin(), data.table.end(), unused) != data.table.end()) ++unused;
  ops.kv_copy_page(cache.pages, unused, data.table[1]);
  data.table[1] = unused;
  const int last = c.lengths[0] - 1;
  const Floats found = forward(ops, c, data, cache.pages, {0}, {last}, {last + 1}, true);
  same_bits("a copied page", found, Floats(expected.end() - c.H * c.D, expected.end()));
}
