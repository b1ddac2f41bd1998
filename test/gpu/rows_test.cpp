// Rows from and to places that a list names, on the device.
#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;

TEST("cuda: gather_rows and scatter_rows") {
  const std::vector<int32_t> from{4, 0, 4, 2}, to{3, 0, 5, 1};
  const int n = int(from.size()), rows = 6;
  for (const int C : {1, 33, 88, 1408, 4097}) {
    for (const size_t off : {0, 1}) {
      const Floats x = normal(size_t(rows) * C + off, 51), y = normal(size_t(rows) * C + off, 52);
      const auto gathered = device_case::on_both([&](Ops& ops) {
        const OnDevice<float> in(ops, x), out(ops, y);
        const OnDevice<int32_t> list(ops, from);
        ops.gather_rows(out + off, in + off, list, n, C);
        return out.values();
      });
      device_case::same("gather_rows", gathered);
      CHECK_EQUAL(gathered.found[off + size_t(2) * C], x[off + size_t(4) * C]);
      const auto scattered = device_case::on_both([&](Ops& ops) {
        const OnDevice<float> in(ops, x), out(ops, y);
        const OnDevice<int32_t> list(ops, to);
        ops.scatter_rows(out + off, in + off, list, n, C);
        return out.values();
      });
      device_case::same("scatter_rows", scattered);
      CHECK_EQUAL(scattered.found[off + size_t(5) * C], x[off + size_t(2) * C]);
      CHECK_EQUAL(scattered.found[off + size_t(4) * C], y[off + size_t(4) * C]);  // named by nobody
    }
  }
}

TEST("cuda: memory traffic of rows") {
  const int n = 3, C = 1408;
  Ops& ops = device_case::device();
  const OnDevice<float> x(ops, normal(size_t(5) * C, 53)), y(ops, size_t(5) * C);
  const OnDevice<int32_t> rows(ops, std::vector<int32_t>{4, 0, 2});
  const double bytes = 2 * 4.0 * n * C + 32 * n;
  device_case::traffic("gather_rows_kernel", {.bytes = bytes}, [&] { ops.gather_rows(y, x, rows, n, C); });
  device_case::traffic("scatter_rows_kernel", {.bytes = bytes}, [&] { ops.scatter_rows(y, x, rows, n, C); });
}
