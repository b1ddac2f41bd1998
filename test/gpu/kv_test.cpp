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

std::vector<uint8_t> written(Ops& ops, const Paged& c, const Sequences& sequences,
                             const std::vector<std::vector<Part>>& batches) {
  const Cache cache(ops, c, sequences);
  for (const std::vector<Part>& parts : batches) {
    const Batch batch(ops, c, sequences, parts);
    ops.kv_write(cache.pages, batch.k, batch.v, batch.rows);
  }
  return bytes_of(cache);
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
    }
  }
}
