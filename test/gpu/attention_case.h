// Attention in double precision, row by row, with what the device's may differ from it by; and the batches over pages that
// the tests of the cache and of attention share.
#pragma once

#include <functional>
#include <vector>

#include "device_case.h"

namespace attention_case {

using minigpt4::Ops;
using minigpt4::Type;
using ops_case::Floats;
using ops_case::OnDevice;

/// What queries, keys, values and weights are rounded to on their way into a product.
enum class Precision { half, full };

/// A row's attention: q, key(i), value(i) point at D floats, i < n. Writes D values and their allowed errors.
struct Row {
  const float* q;
  std::function<const float*(int)> key, value;
  int n, D;
  double scale;
};
void attend_exactly(const Row& row, Precision precision, double* y, double* allowed);

/// Each value rounded to 16 bits and back.
Floats halved(Floats values);

/// Sequences of these lengths, of which the last `fresh` rows each are the batch; the rest is in the cache already.
struct Paged {
  Type type;
  int H, kv_heads, D;
  std::vector<int> lengths, fresh;
  int max_pages = 0;  // of the page table; 0: as many as the longest needs
  float scale() const;
};

/// Whole sequences of seeded values, and a page table with the pages in random order.
struct Sequences {
  int pages = 0, max_pages = 0;
  std::vector<int32_t> table;
  std::vector<Floats> k, v, q;
  explicit Sequences(const Paged& of);
};

/// A cache whose every byte is 0xff: a position that was not written reads as NaN.
struct Cache {
  OnDevice<uint8_t> k, v;
  minigpt4::KvPages pages;
  Cache(Ops& ops, const Paged& of, const Sequences& sequences);
};

/// Rows [from, to) of a sequence.
struct Part {
  int sequence, from, to;
};
/// A batch of parts on the device.
struct Batch {
  OnDevice<int32_t> offsets, positions, table;
  OnDevice<float> k, v, q, y;
  minigpt4::RaggedBatch rows;
  Batch(Ops& ops, const Paged& of, const Sequences& sequences, const std::vector<Part>& parts);
};

/// Puts parts through kv_write and attend_paged; returns [rows, H, D].
Floats attend(Ops& ops, const Paged& of, const Sequences& sequences, const Cache& cache,
              const std::vector<Part>& parts);
/// The rows that are in the cache already, then those of the batch.
std::vector<Part> before(const Paged& of);
std::vector<Part> fresh(const Paged& of);

}  // namespace attention_case
