// AdamW on the device, bit for bit the CPU's (whose test holds it to PyTorch), and the sum of squares.
#include <cmath>

#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;

TEST("cuda: adamw is the CPU's") {
  for (const size_t n : {size_t(1), size_t(3), size_t(4097), size_t(20012)}) {
    for (const size_t off : {0, 1}) {
      const auto run = [&](Ops& ops) {
        const OnDevice<float> w(ops, normal(n + off, 141)), first(ops, n + off), second(ops, n + off);
        Ops::Adamw a{1e-3, 0.9, 0.99, 1e-8, 0.05, 0.25, 1};
        for (; a.step <= 4; ++a.step) {
          Floats gradient = normal(n + off, 142 + uint64_t(a.step), 3);
          gradient[off] = 0;  // where nothing comes nothing but the decay moves
          const OnDevice<float> dw(ops, gradient);
          ops.adamw(w + off, first + off, second + off, dw + off, int64_t(n), a);
        }
        Floats all = w.values();
        for (const OnDevice<float>* more : {&first, &second}) {
          const Floats values = more->values();
          all.insert(all.end(), values.begin(), values.end());
        }
        return all;
      };
      // the same roundings in the same order: division and root are correctly rounded on both
      device_case::same("adamw", device_case::on_both(run));
    }
  }
}

TEST("cuda: squared_sum") {
  Ops& ops = device();
  const int stretch = 8192;
  for (const int n : {0, 1, 3, 4, 33, stretch - 1, stretch, stretch + 1, 3 * stretch + 5, 1000003}) {
    const Floats x = normal(size_t(n), 151, 1e3f);
    long double exact = 0;
    for (const float value : x) exact += (long double)(value)*value;
    const OnDevice<float> there(ops, x);
    const double found = ops.squared_sum(there, n);
    // Squares of float32 are exact in double. At most 33 additions in a thread, 10 in a block's trees, then over the
    // stretches 1 in a thread and 10 again.
    CHECK_NEAR(found, double(exact), 54 * 0x1p-53 * double(exact));
    Floats shifted(1, 5.0f);
    shifted.insert(shifted.end(), x.begin(), x.end());
    const OnDevice<float> odd(ops, shifted);
    CHECK_EQUAL(ops.squared_sum(odd + 1, n), found);
    CHECK_EQUAL(ops.squared_sum(there, n), found);
  }
  const OnDevice<float> broken(ops, Floats{1, NAN, 2});
  CHECK(std::isnan(ops.squared_sum(broken, 3)));
}

TEST("cuda: memory traffic of the optimizer") {
  const int64_t n = 3 * 8192;
  const double bytes = 4.0 * n;
  Ops& ops = device();
  const OnDevice<float> w(ops, normal(size_t(n), 152)), dw(ops, normal(size_t(n), 153)), first(ops, size_t(n)),
      second(ops, size_t(n));
  device_case::traffic("adamw_kernel", {.bytes = 7 * bytes}, [&] { ops.adamw(w, first, second, dw, n, {}); });
  device_case::traffic("square_stretches_kernel",
                       {.useful_writes = 0.25, .bytes = bytes + 32, .reason = "a stretch's sum is one double"},
                       [&] { ops.squared_sum(w, n); });
}
