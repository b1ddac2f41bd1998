// The KV cache's pages on the device, byte for byte what the CPU's are.
#include <cstring>

#include "attention_case.h"

using namespace minigpt4;
using namespace attention_case;
using device_case::device;
using device_case::reference;

namespace {

std::vector<uint8_t> bytes_of(const Cache& cache) {
  std::vector<uint8_t> bytes = cache.k.values();
  const std::vector<uint8_t> more = cache.v.values();
  bytes.insert(bytes.end(), more.begin(), more.end());
  return bytes;
}

/// Cosines and sines of the batch's positions, on its device.
struct Angles {
  OnDevice<float> table;  // [T, half, 2]
  Angles(Ops& ops, const minigpt4::RaggedBatch& batch, int half) : table(ops, size_t(batch.rows) * size_t(half) * 2) {
    Floats frequencies;
    for (int i = 0; i < half; ++i) frequencies.push_back(1 / float(i + 1));
    ops.rope_table(table, batch.positions, OnDevice<float>(ops, frequencies), batch.rows, half);
  }
};

std::vector<uint8_t> written(Ops& ops, const Paged& c, const Sequences& sequences,
                             const std::vector<std::vector<Part>>& batches) {
  const Cache cache(ops, c, sequences);
  for (const std::vector<Part>& parts : batches) {
    const Batch batch(ops, c, sequences, parts);
    ops.kv_write(cache.pages, batch.k, batch.v, batch.rows);
  }
  return bytes_of(cache);
}

/// The cache, then q and k as they are left.
std::vector<uint8_t> turned_and_written(Ops& ops, const Paged& c, const Sequences& sequences,
                                        const std::vector<std::vector<Part>>& batches, int half) {
  const Cache cache(ops, c, sequences);
  std::vector<uint8_t> left;
  for (const std::vector<Part>& parts : batches) {
    const Batch batch(ops, c, sequences, parts);
    const Angles angles(ops, batch.rows, half);
    ops.rope_kv_write(cache.pages, batch.q, batch.k, batch.v, angles.table, c.H, half, batch.rows);
    for (const OnDevice<float>* each : {&batch.q, &batch.k}) {
      const Floats values = each->values();
      const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
      left.insert(left.end(), bytes, bytes + values.size() * sizeof(float));
    }
  }
  std::vector<uint8_t> all = bytes_of(cache);
  all.insert(all.end(), left.begin(), left.end());
  return all;
}

}  // namespace

TEST("cuda: writing into the cache") {
  for (const Type type : {Type::F16, Type::F32}) {
    // whole pages, parts of them, one column block and several, odd widths
    for (const Paged& c : {Paged{type, 4, 4, 64, {70, 33, 16, 1}, {1, 33, 3, 1}},
                           Paged{type, 2, 1, 20, {50, 5}, {48, 0}}, Paged{type, 3, 3, 7, {100}, {77}},
                           Paged{type, 1, 1, 1, {40}, {39}}, Paged{type, 2, 2, 88, {33, 64}, {32, 64}}}) {
      const Sequences sequences(c);
      const std::vector<std::vector<Part>> batches{before(c), fresh(c)};
      CHECK(written(device(), c, sequences, batches) == written(reference(), c, sequences, batches));
    }
  }
}

TEST("cuda: turning queries and keys on the way into the cache") {
  struct Case {
    Paged of;
    int half;
  };
  for (const Type type : {Type::F16, Type::F32}) {
    // whole heads and parts of them, grouped heads, widths that end within a warp, and one that is odd
    for (const Case& c : {Case{{type, 4, 4, 64, {70, 33, 16, 1}, {1, 33, 3, 1}}, 32},
                          Case{{type, 4, 2, 20, {50, 5}, {48, 0}}, 6}, Case{{type, 3, 3, 7, {100}, {77}}, 3},
                          Case{{type, 6, 3, 22, {33, 64}, {32, 64}}, 11}, Case{{type, 1, 1, 8, {20}, {20}}, 0}}) {
      const Sequences sequences(c.of);
      const std::vector<std::vector<Part>> batches{before(c.of), fresh(c.of)};
      // the same products and sums in the same order, nothing fused
      CHECK(turned_and_written(device(), c.of, sequences, batches, c.half) ==
            turned_and_written(reference(), c.of, sequences, batches, c.half));
    }
  }
}

TEST("cuda: what does not fit 16 bits becomes infinite or zero in the cache, as on the CPU") {
  const Paged c{Type::F16, 1, 1, 8, {2}, {2}};
  Sequences sequences(c);
  sequences.k[0] = {65504, 65519.996f, 65520, 1e30f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, -1e-30f,
                    1,     -1,         0,     -0.0f, 3,        0.1f,     7,          5};
  sequences.v[0] = sequences.k[0];
  CHECK(written(device(), c, sequences, {fresh(c)}) == written(reference(), c, sequences, {fresh(c)}));
}

TEST("cuda: copying a page of the cache") {
  for (const Type type : {Type::F16, Type::F32}) {
    const Paged c{type, 2, 2, 24, {40}, {40}};
    const Sequences sequences(c);
    const Cache cache(device(), c, sequences);
    const Batch batch(device(), c, sequences, fresh(c));
    device().kv_write(cache.pages, batch.k, batch.v, batch.rows);
    const std::vector<uint8_t> before_it = bytes_of(cache);
    int32_t unused = 0;
    while (std::find(sequences.table.begin(), sequences.table.end(), unused) != sequences.table.end()) ++unused;
    device().kv_copy_page(cache.pages, unused, sequences.table[1]);
    std::vector<uint8_t> expected = before_it;
    const size_t page = expected.size() / 2 / size_t(sequences.pages);
    for (const size_t half : {size_t(0), expected.size() / 2}) {
      std::memcpy(&expected[half + size_t(unused) * page], &before_it[half + size_t(sequences.table[1]) * page], page);
    }
    CHECK(bytes_of(cache) == expected);
  }
}

TEST("cuda: memory traffic of writing into the cache") {
  for (const Type type : {Type::F16, Type::F32}) {
    const Paged prompt{type, 4, 4, 128, {128}, {128}}, decode{type, 4, 4, 128, {18, 30}, {1, 1}};
    for (const Paged& c : {prompt, decode}) {
      const Sequences sequences(c);
      const Cache cache(device(), c, sequences);
      const Batch batch(device(), c, sequences, fresh(c));
      device_case::TrafficBounds bounds;
      if (c.lengths.size() > 1) {
        // a page's keys lie by dimension: one position is 2 (4) bytes of every 32-byte sector; its values are whole ones
        bounds.useful_writes = type == Type::F16 ? 0.11 : 0.22;
        bounds.useful_reads = 0.6;
        bounds.reason =
            "one position of a page's keys is a part of each of its sectors; next to one row, finding its page "
            "is a part of what is read";
      }
      device_case::traffic("kv_write_kernel", bounds,
                           [&] { device().kv_write(cache.pages, batch.k, batch.v, batch.rows); });
      const Angles angles(device(), batch.rows, c.D / 2);
      device_case::traffic("kv_write_kernel", bounds, [&] {
        device().rope_kv_write(cache.pages, batch.q, batch.k, batch.v, angles.table, c.H, c.D / 2, batch.rows);
      });
    }
  }
}
