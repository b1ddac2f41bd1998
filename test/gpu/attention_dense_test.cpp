// Full attention on the device, as the ViT and the Q-Former use it, against double precision.
#include "attention_case.h"

using namespace minigpt4;
using namespace attention_case;
using device_case::device;

namespace {

struct Dense {
  int B, Tq, Tk, H, D;
  bool joined = false;  // q, k and v lie in one [B, T, 3C] buffer
  int shift = 0;        // floats by which everything is off the memory's alignment
};

struct Data {
  int64_t q_stride, k_stride;
  Floats q, k, v;  // joined: k and v are q from their column on
  explicit Data(const Dense& c) : q_stride((c.joined ? 3 : 1) * c.H * c.D), k_stride(q_stride) {
    q = ops_case::normal(size_t(c.B) * size_t(c.Tq) * size_t(q_stride), 71);
    if (c.joined) {
      k.assign(q.begin() + c.H * c.D, q.end());
      v.assign(q.begin() + 2 * c.H * c.D, q.end());
    } else {
      k = ops_case::normal(size_t(c.B) * size_t(c.Tk) * size_t(k_stride), 72);
      v = ops_case::normal(size_t(c.B) * size_t(c.Tk) * size_t(k_stride), 73);
    }
  }
};

Floats shifted(const Floats& values, int by) {
  Floats moved(size_t(by), 0.0f);
  moved.insert(moved.end(), values.begin(), values.end());
  return moved;
}

/// Attention of images [first, first + count).
Floats run(Ops& ops, const Dense& c, const Data& data, int first, int count) {
  const OnDevice<float> q(ops, shifted(data.q, c.shift)), k(ops, shifted(data.k, c.shift)),
      v(ops, shifted(data.v, c.shift)), y(ops, size_t(count) * size_t(c.Tq * c.H * c.D), NAN);
  Ops::Attention a;
  a.y = y;
  a.q = q + c.shift + first * c.Tq * data.q_stride;
  a.k = c.joined ? a.q + c.H * c.D : k + c.shift + first * c.Tk * data.k_stride;
  a.v = c.joined ? a.q + 2 * c.H * c.D : v + c.shift + first * c.Tk * data.k_stride;
  a.q_stride = data.q_stride, a.k_stride = a.v_stride = data.k_stride;
  a.B = count, a.Tq = c.Tq, a.Tk = c.Tk, a.H = c.H, a.D = c.D, a.scale = 1 / std::sqrt(float(c.D));
  ops.attend(a);
  return y.values();
}

}  // namespace

TEST("cuda: attention of all queries to all keys") {
  for (const Dense& c : {Dense{1, 257, 257, 2, 88, true}, Dense{2, 32, 257, 3, 64}, Dense{2, 32, 32, 2, 64, true},
                         Dense{1, 100, 70, 1, 128}, Dense{1, 1, 1, 1, 7}, Dense{3, 5, 17, 2, 100},
                         Dense{1, 17, 64, 2, 9, false}, Dense{1, 20, 65, 1, 160}, Dense{2, 33, 33, 2, 64, true, 1},
                         Dense{1, 16, 40, 1, 24}, Dense{1, 3, 9, 2, 1}, Dense{1, 90, 70, 1, 256}}) {
    const Data data(c);
    const Floats found = run(device(), c, data, 0, c.B);
    std::vector<double> expected(found.size()), allowed(found.size());
    size_t to = 0;
    for (int b = 0; b < c.B; ++b) {
      for (int t = 0; t < c.Tq; ++t) {
        for (int h = 0; h < c.H; ++h, to += size_t(c.D)) {
          const auto row = [&, b, h](const Floats& of) {
            return [&of, &c, &data, b, h](int i) {
              return &of[size_t((int64_t(b) * c.Tk + i) * data.k_stride + h * c.D)];
            };
          };
          const Row exact{&data.q[size_t((int64_t(b) * c.Tq + t) * data.q_stride + h * c.D)],
                          row(data.k),
                          row(data.v),
                          c.Tk,
                          c.D,
                          double(1 / std::sqrt(float(c.D)))};
          attend_exactly(exact, Precision::half, &expected[to], &allowed[to]);
        }
      }
    }
    ops_case::near("attend, heads of " + std::to_string(c.D), found, expected, allowed);
    for (int b = 0; b < c.B && c.B > 1; ++b) {
      const auto begin = found.begin() + int64_t(b) * int64_t(found.size()) / c.B;
      device_case::same("an image alone",
                        {run(device(), c, data, b, 1), Floats(begin, begin + int64_t(found.size()) / c.B)});
    }
  }
}

TEST("cuda: attention of all queries refuses wider heads than it has room for") {
  const Dense c{1, 2, 2, 1, 257};
  const Data data(c);
  CHECK_ERROR(code::unsupported, "257", run(device(), c, data, 0, 1));
}

TEST("cuda: memory traffic of attention of all queries") {
  for (const Dense& c : {Dense{1, 257, 257, 2, 88, true}, Dense{1, 32, 257, 2, 64}, Dense{1, 64, 64, 2, 128}}) {
    const Data data(c);
    device_case::traffic("attend_dense_kernel", {}, [&] { run(device(), c, data, 0, 1); });
  }
}
