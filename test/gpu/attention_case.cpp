#include "attention_case.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/dtype.h"
#include "core/rng.h"

namespace attention_case {

using namespace minigpt4;
using ops_case::kRounding;
using ops_case::normal;

namespace {

constexpr double kHalfRounding = 0x1p-11;  // relative error of one rounding to 16 bits
constexpr double kHalfSmallest = 0x1p-25;  // absolute error where the result is subnormal

/// The parts' rows of all sequences, `width` values each, one after the other.
Floats gathered(const std::vector<Floats>& all, const std::vector<Part>& parts, int width) {
  Floats rows;
  for (const Part& part : parts) {
    const auto begin = all[size_t(part.sequence)].begin();
    rows.insert(rows.end(), begin + int64_t(part.from) * width, begin + int64_t(part.to) * width);
  }
  return rows;
}

std::vector<int32_t> offsets_of(const std::vector<Part>& parts) {
  std::vector<int32_t> offsets{0};
  for (const Part& part : parts) offsets.push_back(offsets.back() + part.to - part.from);
  return offsets;
}

std::vector<int32_t> positions_of(const std::vector<Part>& parts) {
  std::vector<int32_t> positions;
  for (const Part& part : parts) {
    for (int p = part.from; p < part.to; ++p) positions.push_back(p);
  }
  return positions;
}

std::vector<int32_t> table_of(const Sequences& sequences, const std::vector<Part>& parts) {
  std::vector<int32_t> table;
  for (const Part& part : parts) {
    const auto begin = sequences.table.begin() + int64_t(part.sequence) * sequences.max_pages;
    table.insert(table.end(), begin, begin + sequences.max_pages);
  }
  return table;
}

size_t cache_bytes(const Paged& of, const Sequences& sequences) {
  return size_t(sequences.pages) * size_t(of.kv_heads) * kPagePositions * size_t(of.D) * (of.type == Type::F16 ? 2 : 4);
}

}  // namespace

Floats halved(Floats values) {
  for (float& each : values) each = half_to_float(float_to_half(each));
  return values;
}

void attend_exactly(const Row& row, Precision precision, double* y, double* allowed) {
  const bool half = precision == Precision::half;
  const auto rounded = [&](const float* from) {
    const Floats values(from, from + row.D);
    return half ? halved(values) : values;
  };
  const Floats q = rounded(row.q);
  std::vector<double> p(static_cast<size_t>(row.n));
  std::vector<Floats> values;
  double largest = -INFINITY, sum = 0, score_error = 0;
  for (int i = 0; i < row.n; ++i) {
    const Floats key = rounded(row.key(i));
    values.push_back(rounded(row.value(i)));
    double dot = 0, size = 0;
    for (int d = 0; d < row.D; ++d) dot += double(q[d]) * key[d], size += std::fabs(double(q[d]) * key[d]);
    p[i] = dot * row.scale;
    largest = std::max(largest, p[i]);
    // A chain over D, and the factor, itself rounded. Matrix units may cut off where a float32 sum rounds: twice the error.
    score_error = std::max(score_error, 2 * (row.D + 2) * kRounding * size * row.scale);
  }
  for (double& each : p) each = std::exp(each - largest), sum += each;
  for (int d = 0; d < row.D; ++d) {
    double size = 0, most = 0;
    y[d] = 0;
    for (int i = 0; i < row.n; ++i) {
      y[d] += p[i] / sum * values[size_t(i)][size_t(d)];
      size += p[i] / sum * std::fabs(values[size_t(i)][size_t(d)]);
      most = std::max(most, std::fabs(double(values[size_t(i)][size_t(d)])));
    }
    // A weight's relative error: its score's and the largest one's, the rounding of their difference (scores up to 60 apart
    // matter), 4 of 2^x, as many for each time that a larger score was found or a piece joined (n / 32 at most), and the
    // rounding to 16 bits; the chain over the positions (see above) and the division; all once more for the weights' sum.
    // Weights too small for 16 bits' full precision are off by kHalfSmallest of one that is 1.
    const double weight =
        2 * score_error + (60 + 4 + 6.0 * row.n / 32 + 2 * row.n) * kRounding + (half ? kHalfRounding : 0);
    allowed[d] = size * (2 * weight + 4 * kRounding) + (half ? 2 * row.n * kHalfSmallest * most : 0);
  }
}

float Paged::scale() const { return 1 / std::sqrt(float(D)); }

Sequences::Sequences(const Paged& of) : max_pages(of.max_pages) {
  const int count = int(of.lengths.size());
  for (int length : of.lengths) max_pages = std::max(max_pages, pages_for(length));
  int used = 0;
  for (int length : of.lengths) used += pages_for(length);
  pages = used + 3;
  std::vector<int32_t> order(static_cast<size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(81);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.next() % i]);
  table.assign(size_t(count) * size_t(max_pages), -1);  // where no page is, nobody may look
  for (int b = 0, next = 0; b < count; ++b) {
    for (int i = 0; i < pages_for(of.lengths[size_t(b)]); ++i) {
      table[size_t(b) * size_t(max_pages) + size_t(i)] = order[size_t(next++)];
    }
    const size_t length = size_t(of.lengths[size_t(b)]), narrow = length * size_t(of.kv_heads) * size_t(of.D);
    k.push_back(normal(narrow, 90 + uint64_t(b)));
    v.push_back(normal(narrow, 190 + uint64_t(b)));
    q.push_back(normal(length * size_t(of.H) * size_t(of.D), 290 + uint64_t(b)));
  }
}

Cache::Cache(Ops& ops, const Paged& of, const Sequences& sequences)
    : k(ops, cache_bytes(of, sequences), uint8_t(0xff)),
      v(ops, cache_bytes(of, sequences), uint8_t(0xff)),
      pages{static_cast<uint8_t*>(k), static_cast<uint8_t*>(v), of.type, sequences.pages, of.kv_heads, of.D} {}

Batch::Batch(Ops& ops, const Paged& of, const Sequences& sequences, const std::vector<Part>& parts)
    : offsets(ops, offsets_of(parts)),
      positions(ops, positions_of(parts)),
      table(ops, table_of(sequences, parts)),
      k(ops, gathered(sequences.k, parts, of.kv_heads * of.D)),
      v(ops, gathered(sequences.v, parts, of.kv_heads * of.D)),
      q(ops, gathered(sequences.q, parts, of.H * of.D)),
      y(ops, q.values().size(), NAN),
      rows{offsets_of(parts).back(), int(parts.size()), sequences.max_pages, offsets, positions, table} {}

Floats attend(Ops& ops, const Paged& of, const Sequences& sequences, const Cache& cache,
              const std::vector<Part>& parts) {
  const Batch batch(ops, of, sequences, parts);
  ops.kv_write(cache.pages, batch.k, batch.v, batch.rows);
  ops.attend_paged(batch.y, batch.q, cache.pages, batch.rows, of.H, of.scale());
  return batch.y.values();
}

std::vector<Part> before(const Paged& of) {
  std::vector<Part> parts;
  for (size_t b = 0; b < of.lengths.size(); ++b) parts.push_back({int(b), 0, of.lengths[b] - of.fresh[b]});
  return parts;
}

std::vector<Part> fresh(const Paged& of) {
  std::vector<Part> parts;
  for (size_t b = 0; b < of.lengths.size(); ++b) parts.push_back({int(b), of.lengths[b] - of.fresh[b], of.lengths[b]});
  return parts;
}

}  // namespace attention_case
