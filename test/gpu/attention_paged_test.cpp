// Attention over pages on the device, against double precision; and that a row has the same bits however it comes.
#include "attention_case.h"
#include "ops/cuda/devices.h"
#ifdef MINIGPT4_SIMT
#include "simt/faults.h"
#endif

using namespace minigpt4;
using namespace attention_case;
using device_case::device;

namespace {

/// Few query vectors (by pieces of the context), many, both in one batch; heads that share keys; widths with kernels of their
/// own and others, cut into slices; contexts that end within, at and behind a piece of 128 positions.
const std::vector<Paged>& cases() {
  static const std::vector<Paged> all{
      {Type::F16, 4, 4, 64, {300, 33, 16, 1, 128, 129}, {1, 33, 3, 1, 1, 2}},
      {Type::F16, 2, 2, 128, {300, 140, 64}, {150, 1, 64}},
      {Type::F16, 8, 2, 88, {210, 40, 257}, {40, 40, 1}},
      {Type::F16, 8, 1, 8, {50, 5, 70}, {20, 5, 0}},
      {Type::F16, 3, 3, 24, {140}, {140}},
      {Type::F16, 2, 1, 20, {40, 90}, {17, 90}},
      {Type::F16, 2, 1, 1, {20, 150}, {20, 1}},
      {Type::F16, 1, 1, 7, {200}, {66}},
      {Type::F16, 2, 2, 160, {140, 270}, {70, 2}},
      {Type::F16, 1, 1, 256, {70}, {66}},
      {Type::F16, 32, 1, 16, {135, 20}, {1, 2}},
      // more pieces than are joined at once
      {Type::F16, 1, 1, 8, {1200, 1030}, {1, 2}},
      {Type::F16, 1, 1, 7, {1100}, {1}},
      // pieces by the thousand may be asked for: results of few rows of each sequence are kept, the rest goes through all
      {Type::F16, 1, 1, 8, {200, 70, 30}, {160, 70, 30}, 4096 * 8},
      {Type::F32, 6, 2, 88, {40, 41, 17, 9}, {37, 1, 17, 0}},
      {Type::F32, 2, 2, 128, {100}, {70}},
      {Type::F32, 4, 2, 9, {40, 5}, {9, 5}},
      {Type::F32, 2, 1, 200, {40}, {33}},
      {Type::F32, 1, 1, 1, {35}, {35}},
  };
  return all;
}

std::string name(const Paged& c) {
  return "attend_paged of " + std::to_string(c.H) + " heads of " + std::to_string(c.D);
}

Floats found_of(Ops& ops, const Paged& c, const Sequences& sequences) {
  const Cache cache(ops, c, sequences);
  const Batch earlier(ops, c, sequences, before(c));
  ops.kv_write(cache.pages, earlier.k, earlier.v, earlier.rows);
  return attend(ops, c, sequences, cache, fresh(c));
}

}  // namespace

TEST("cuda: attention over pages") {
  for (const Paged& c : cases()) {
    const Sequences sequences(c);
    const Floats found = found_of(device(), c, sequences);
    std::vector<double> expected(found.size()), allowed(found.size());
    size_t to = 0;
    for (const Part& part : fresh(c)) {
      const Floats &k = sequences.k[size_t(part.sequence)], &v = sequences.v[size_t(part.sequence)];
      for (int p = part.from; p < part.to; ++p) {
        for (int h = 0; h < c.H; ++h, to += size_t(c.D)) {
          const auto row = [&c, h](const Floats& of) {
            return [&of, &c, h](int i) { return &of[size_t((i * c.kv_heads + h / (c.H / c.kv_heads)) * c.D)]; };
          };
          const Row exact{&sequences.q[size_t(part.sequence)][size_t((p * c.H + h) * c.D)],
                          row(k),
                          row(v),
                          p + 1,
                          c.D,
                          double(c.scale())};
          attend_exactly(exact, c.type == Type::F16 ? Precision::half : Precision::full, &expected[to], &allowed[to]);
        }
      }
    }
    CHECK_EQUAL(to, found.size());
    ops_case::near(name(c), found, expected, allowed);
  }
}

TEST("cuda: attention over pages does not depend on the batch or on chunks") {
  for (const Paged& c : cases()) {
    const Sequences sequences(c);
    Ops& ops = device();
    const Floats expected = found_of(ops, c, sequences);
    const size_t row = size_t(c.H) * size_t(c.D);
    size_t at = 0;
    for (const Part& part : fresh(c)) {
      // by itself: in chunks of several sizes, and one row at a time
      for (int chunk : {1, 23, 80}) {
        const Cache cache(ops, c, sequences);
        Paged alone = c;
        alone.max_pages = 0;  // another number of pieces that there might be
        const std::vector<Part> earlier{{part.sequence, 0, part.from}};
        const Batch batch(ops, alone, sequences, earlier);
        ops.kv_write(cache.pages, batch.k, batch.v, batch.rows);
        Floats found;
        for (int p = part.from; p < part.to; p += chunk) {
          // the first and the last rows of long parts are enough of the single ones
          const bool skipped = chunk == 1 && p > part.from + 3 && p + 3 < part.to;
          const std::vector<Part> next{{part.sequence, p, std::min(p + chunk, part.to)}};
          if (skipped) {
            const Batch written(ops, alone, sequences, next);
            ops.kv_write(cache.pages, written.k, written.v, written.rows);
            const auto from = expected.begin() + int64_t(at + size_t(p - part.from) * row);
            found.insert(found.end(), from, from + int64_t(row));
            continue;
          }
          const Floats more = attend(ops, alone, sequences, cache, next);
          found.insert(found.end(), more.begin(), more.end());
        }
        const auto begin = expected.begin() + int64_t(at);
        device_case::same(name(c) + " in chunks of " + std::to_string(chunk),
                          {found, Floats(begin, begin + int64_t(found.size()))});
      }
      at += size_t(part.to - part.from) * row;
    }
  }
}

#ifdef MINIGPT4_SIMT
TEST("cuda: attention over pages where a block takes several pieces of the context") {
  // 64 tiles and heads on a device of one multiprocessor: one block each
  for (const Paged& c : {Paged{Type::F16, 32, 32, 8, {300, 520}, {1, 1}},
                         Paged{Type::F16, 25, 25, 64, {400, 129}, {1, 2}}, Paged{Type::F16, 48, 48, 20, {270}, {1}}}) {
    const Sequences sequences(c);
    const Floats expected = found_of(device(), c, sequences);
    simt::configure("processors=1");
    const std::unique_ptr<Ops> small = cuda::make_device_ops(0);
    device_case::same(name(c) + " in turn", {found_of(*small, c, sequences), expected});
  }
}
#endif

TEST("cuda: a recorded step attends to a growing context") {
  const Paged c{Type::F16, 4, 2, 64, {131, 20}, {4, 4}};
  const Sequences sequences(c);
  Ops& ops = device();
  const Cache cache(ops, c, sequences), plain(ops, c, sequences);
  for (const Cache* each : {&cache, &plain}) {
    const Batch earlier(ops, c, sequences, before(c));
    ops.kv_write(each->pages, earlier.k, earlier.v, earlier.rows);
  }
  const auto step = [&](int i) { return std::vector<Part>{{0, 127 + i, 128 + i}, {1, 16 + i, 17 + i}}; };
  const Batch batch(ops, c, sequences, step(0));
  for (int i = 0; i < 4; ++i) {  // the second time is recorded, the third and fourth are the record
    const Batch next(ops, c, sequences, step(i));
    ops.copy(batch.positions, next.positions, 2 * sizeof(int32_t));
    ops.copy(batch.q, next.q, next.q.values().size() * sizeof(float));
    ops.copy(batch.k, next.k, next.k.values().size() * sizeof(float));
    ops.copy(batch.v, next.v, next.v.values().size() * sizeof(float));
    ops.replay(77, [&] {
      ops.kv_write(cache.pages, batch.k, batch.v, batch.rows);
      ops.attend_paged(batch.y, batch.q, cache.pages, batch.rows, c.H, c.scale());
    });
    device_case::same("a recorded step", {batch.y.values(), attend(ops, c, sequences, plain, step(i))});
  }
}

TEST("cuda: attention over pages refuses wider heads than it has room for") {
  const Paged c{Type::F16, 1, 1, 257, {3}, {3}};
  const Sequences sequences(c);
  const Cache cache(device(), c, sequences);
  const Batch batch(device(), c, sequences, fresh(c));
  CHECK_ERROR(code::unsupported, "257",
              device().attend_paged(batch.y, batch.q, cache.pages, batch.rows, c.H, c.scale()));
}

TEST("cuda: memory traffic of attention over pages") {
  const auto hold = [](const char* kernel, const Paged& c, const device_case::TrafficBounds& bounds) {
    const Sequences sequences(c);
    const Cache cache(device(), c, sequences);
    const Batch earlier(device(), c, sequences, before(c)), batch(device(), c, sequences, fresh(c));
    device().kv_write(cache.pages, earlier.k, earlier.v, earlier.rows);
    device().kv_write(cache.pages, batch.k, batch.v, batch.rows);
    device_case::traffic(kernel, bounds,
                         [&] { device().attend_paged(batch.y, batch.q, cache.pages, batch.rows, c.H, c.scale()); });
  };
  for (int D : {64, 88, 128}) {
    const Paged decode{Type::F16, 4, 4, D, {256, 256}, {1, 1}}, prompt{Type::F16, 2, 2, D, {256}, {128}};
    hold("attend_few_kernel", decode, {});
    hold("attend_join_kernel", decode,
         {.useful_reads = 0.75, .reason = "next to two pieces' results, finding them is a part of what is read"});
    hold("attend_many_kernel", prompt, {});
    const Paged training{Type::F32, 2, 2, D, {128}, {128}};
    hold("attend_f32_kernel", training, {});
  }
}
