// Rotary positions on the device, bit for bit those of the CPU.
#include <cmath>

#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;

namespace {

Floats frequencies_of(int half) {
  Floats frequencies;
  for (int i = 0; i < half; ++i) frequencies.push_back(float(std::pow(10000.0, -double(i) / half)));
  return frequencies;
}

Floats table_of(Ops& ops, const std::vector<int32_t>& positions, int half) {
  const int T = int(positions.size());
  const OnDevice<int32_t> p(ops, positions);
  const OnDevice<float> f(ops, frequencies_of(half)), table(ops, size_t(T) * half * 2);
  ops.rope_table(table, p, f, T, half);
  return table.values();
}

}  // namespace

TEST("cuda: rope_table is the CPU's") {
  std::vector<int32_t> positions{0, 1, 2, 3, 1000, 4095, 131071, 16777215};
  for (int i = 0; i < 100; ++i) positions.push_back(37 * i);
  // Both round a cosine that is right to some 1e-16: a bit may differ only where it lies that near to the middle of two
  // floats, which none of these does.
  device_case::same("rope_table", device_case::on_both([&](Ops& ops) { return table_of(ops, positions, 44); }));
}

TEST("cuda: rope and rope_dx are the CPU's") {
  struct Shape {
    int T, H, D, half;
  };
  for (const Shape& s : {Shape{1, 1, 2, 1}, Shape{5, 3, 88, 44}, Shape{7, 2, 88, 32}, Shape{3, 32, 128, 64},
                         Shape{4, 3, 33, 16}, Shape{2, 2, 64, 31}, Shape{0, 2, 64, 32}}) {
    std::vector<int32_t> positions;
    for (int t = 0; t < s.T; ++t) positions.push_back(1000 * t + 3);
    for (const size_t off : {0, 1}) {
      const Floats x = normal(size_t(s.T) * s.H * s.D + off, 41);
      const auto turned = [&](Ops& ops, bool back, int from, int T) {
        const OnDevice<float> turn(ops, table_of(ops, positions, s.half)), y(ops, x);
        float* first = y + off + size_t(from) * s.H * s.D;
        const float* angles = turn + size_t(from) * s.half * 2;
        back ? ops.rope_dx(first, angles, T, s.H, s.D, s.half) : ops.rope(first, angles, T, s.H, s.D, s.half);
        return y.values();
      };
      for (const bool back : {false, true}) {
        const auto both = device_case::on_both([&](Ops& ops) { return turned(ops, back, 0, s.T); });
        // the same products and sums in the same order, nothing fused
        device_case::same(back ? "rope_dx" : "rope", both);
        if (s.T == 0) continue;
        const auto row = std::ptrdiff_t(s.H) * s.D;
        const Floats alone = turned(device(), back, s.T - 1, 1);
        same_bits("the last row alone", {alone.end() - row, alone.end()}, {both.found.end() - row, both.found.end()});
      }
    }
  }
}

TEST("cuda: memory traffic of rotary positions") {
  const int T = 16, H = 4, D = 128, half = 64;
  Ops& ops = device();
  std::vector<int32_t> all(T, 5);
  const OnDevice<int32_t> positions(ops, all);
  const OnDevice<float> f(ops, frequencies_of(half)), table(ops, size_t(T) * half * 2),
      x(ops, normal(size_t(T) * H * D, 42));
  device_case::traffic("rope_table_kernel",
                       {.useful_reads = 0.8,
                        .bytes = 4.0 * (2 * T * half + half) + 32 * T,
                        .reason = "a warp's 32 angles have one position, 4 bytes of a sector"},
                       [&] { ops.rope_table(table, positions, f, T, half); });
  device_case::traffic("rope_kernel", {.bytes = 4.0 * (2 * T * H * D + 2 * T * half)},
                       [&] { ops.rope(x, table, T, H, D, half); });
}
