// Pictures to patches and the class token before them, on the device: bit for bit the CPU's.
#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;

TEST("cuda: patchify") {
  struct Shape {
    int B, S, p;
  };
  for (const Shape& s : {Shape{2, 28, 14}, Shape{1, 224, 14}, Shape{3, 33, 8}, Shape{1, 5, 1}, Shape{1, 64, 32}}) {
    const Floats pixels = normal(size_t(s.B) * 3 * s.S * s.S, 61);
    const size_t side = size_t(s.S / s.p);
    device_case::same("patchify", device_case::on_both([&](Ops& ops) {
                        const OnDevice<float> in(ops, pixels), out(ops, s.B * side * side * 3 * s.p * s.p);
                        ops.patchify(out, in, s.B, s.S, s.p);
                        return out.values();
                      }));
  }
}

TEST("cuda: prepend_class") {
  for (const int C : {1, 33, 88, 1408}) {
    for (const int B : {0, 1, 3}) {
      const int P = 5;
      const Floats patches = normal(size_t(B) * P * C, 62), token = normal(C, 63),
                   places = normal(size_t(P + 1) * C, 64);
      device_case::same("prepend_class", device_case::on_both([&](Ops& ops) {
                          const OnDevice<float> rows(ops, patches), first(ops, token), positions(ops, places),
                              x(ops, size_t(B) * (P + 1) * C);
                          ops.prepend_class(x, rows, first, positions, B, P, C);
                          return x.values();
                        }));
    }
  }
}

TEST("cuda: memory traffic of pictures") {
  const int B = 2, S = 224, p = 14, side = S / p, P = side * side, C = 1408;
  Ops& ops = device_case::device();
  const OnDevice<float> pixels(ops, normal(size_t(B) * 3 * S * S, 65)), patches(ops, size_t(B) * 3 * S * S);
  device_case::traffic(
      "patchify_kernel",
      {.useful_reads = 0.55,
       .bytes = 2 * 4.0 * B * 3 * S * S,
       .reason = "runs of 14 pixels, 56 bytes, lie in two or three sectors of 32; the neighbouring patch "
                 "asks for the rest"},
      [&] { ops.patchify(patches, pixels, B, S, p); });
  const OnDevice<float> rows(ops, normal(size_t(B) * P * C, 66)), token(ops, normal(C, 67)),
      positions(ops, normal(size_t(P + 1) * C, 68)), x(ops, size_t(B) * (P + 1) * C);
  device_case::traffic("prepend_class_kernel", {.bytes = 4.0 * C * (B * P + 1 + P + 1 + B * (P + 1))},
                       [&] { ops.prepend_class(x, rows, token, positions, B, P, C); });
}
