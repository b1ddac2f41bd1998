// The device itself: memory, copies, recorded launches, two backends on one card, and, in the emulator, what is said where
// something is missing or fails.
#include <cstring>
#include <limits>
#include <memory>
#include <thread>

#include "check.h"
#include "core/rng.h"
#include "device_case.h"
#include "ops/cuda/devices.h"
#ifdef MINIGPT4_SIMT
#include "simt/device_memory.h"
#include "simt/faults.h"
#include "simt/report.h"
#endif

using namespace minigpt4;
using device_case::device;
using device_case::Floats;
using ops_case::OnDevice;

namespace {

std::unique_ptr<Ops> another_backend() {
  device();  // skips where there is none
  return cuda::make_device_ops(0);
}

Holding holding(const Ops& ops, const std::string& owner) {
  for (const Holding& each : ops.holdings()) {
    if (each.owner == owner) return each;
  }
  return {owner, 0, 0, 0};
}

}  // namespace

TEST("cuda: memory is aligned, and told by its owners") {
  const std::unique_ptr<Ops> ops = another_backend();
  CHECK(ops->describe().find("GB") != std::string::npos);
  void* first = ops->allocate(1000, "some owner");
  void* second = ops->allocate(24, "some owner");
  void* none = ops->allocate(0, "nothing");
  CHECK_EQUAL(reinterpret_cast<uintptr_t>(first) % 256, uintptr_t(0));
  CHECK(none != nullptr);
  ops->release(first);
  CHECK_EQUAL(holding(*ops, "some owner").bytes, size_t(24));
  CHECK_EQUAL(holding(*ops, "some owner").peak, size_t(1024));
  CHECK_EQUAL(holding(*ops, "some owner").pieces, size_t(1));
  ops->release(second);
  ops->release(none);
  ops->release(nullptr);
  CHECK_EQUAL(holding(*ops, "some owner").bytes, size_t(0));
}

TEST("cuda: more memory than the card has is refused with the numbers") {
  const std::unique_ptr<Ops> ops = another_backend();
  CHECK(ops->is_device());
  const size_t room = ops->room();
  CHECK_ERROR(code::out_of_memory, "weights", ops->allocate(room + (size_t(1) << 30), "weights"));
  void* small = ops->allocate(4096, "weights");
  CHECK_ERROR(code::out_of_memory, "kv cache needs 1125899906842624 bytes", ops->allocate(size_t(1) << 50, "kv cache"));
  CHECK_ERROR(code::out_of_memory, "bytes free of", ops->allocate(size_t(1) << 50, "kv cache"));
  CHECK_ERROR(code::out_of_memory, "holds 4096 bytes", ops->allocate(size_t(1) << 50, "kv cache"));
  CHECK_EQUAL(holding(*ops, "kv cache").pieces, size_t(0));
  ops->release(small);
  ops->release(ops->allocate(4096, "kv cache"));  // and the backend goes on
}

TEST("cuda: copies of every size arrive, through pieces of pinned memory") {
  Ops& ops = device();
  constexpr size_t piece = size_t(4) << 20;
  for (const size_t bytes : {size_t(0), size_t(1), size_t(1000), piece - 1, piece, piece + 1, 3 * piece + 5}) {
    std::vector<uint8_t> sent(bytes), back(bytes, 0);
    Rng rng(bytes);
    for (uint8_t& each : sent) each = uint8_t(rng.next() >> 32);
    void* one = ops.allocate(bytes, "test");
    void* two = ops.allocate(bytes, "test");
    ops.upload(one, sent.data(), bytes);
    ops.copy(two, one, bytes);
    ops.download(back.data(), two, bytes);
    CHECK(back == sent);
    ops.release(one);
    ops.release(two);
  }
}

TEST("cuda: an upload's host memory is free when it returns") {
  Ops& ops = device();
  std::vector<float> values(1000);
  OnDevice<float> a(ops, 1000), b(ops, 1000);
  for (float& value : values) value = 1;
  ops.upload(a, values.data(), 4000);
  for (float& value : values) value = 2;
  ops.upload(b, values.data(), 4000);
  for (float& value : values) value = 3;
  CHECK(a.values() == Floats(1000, 1));
  CHECK(b.values() == Floats(1000, 2));
}

TEST("cuda: two backends on one card, used by several threads, do not disturb each other") {
  const std::unique_ptr<Ops> one = another_backend(), two = another_backend();
  std::vector<std::thread> threads;
  for (Ops* ops : {one.get(), two.get()}) {
    threads.emplace_back([ops] {
      for (int round = 0; round < 20; ++round) {
        const float value = float(round) + (ops ? 0.5f : 0);
        OnDevice<float> x(*ops, Floats(500, value)), y(*ops, 500);
        ops->replay(1, [] {});
        ops->copy(y, x, 2000);
        CHECK(y.values() == Floats(500, value));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST("cuda: matrices of no known type or size are refused, and a matrix outlives its backend") {
  std::unique_ptr<Ops> ops = another_backend();
  const Floats values(64, 1);
  CHECK_ERROR(code::unsupported, "type number 77", ops->matrix({Type(77), 2, 32, values.data()}, "weights"));
  CHECK_ERROR(code::shape, "0 rows", ops->matrix({Type::F32, 0, 32, values.data()}, "weights"));
  CHECK_ERROR(code::shape, "of each", ops->matrix({Type::F16, int64_t(1) << 40, 32, values.data()}, "weights"));
  CHECK_ERROR(code::shape, "", ops->matrix({Type::Q4_0, 2, 31, values.data()}, "weights"));
  CHECK_EQUAL(holding(*ops, "weights").pieces, size_t(0));
  const std::vector<uint8_t> blocks = ops_case::weights(Type::Q4_0, 20, 64, 1);
  const std::unique_ptr<Matrix> quantized = ops->matrix({Type::Q4_0, 20, 64, blocks.data()}, "weights");
  CHECK_EQUAL(quantized->rows, 20);
  CHECK_EQUAL(holding(*ops, "weights").bytes, quantized->bytes);
  CHECK_EQUAL(quantized->bytes, ops->matrix_bytes(Type::Q4_0, 20, 64));
  OnDevice<float> source(*ops, 64);
  CHECK_ERROR(code::argument, "Q4_0", ops->refill(*quantized, source));
  const std::unique_ptr<Matrix> plain = ops->matrix({Type::F32, 2, 32, values.data()}, "weights");
  CHECK_EQUAL(plain->bytes, size_t(256));
  ops->release(ops->allocate(1, "test"));
}

TEST("cuda: every row of a packed matrix, and of a refilled one, is where it should be") {
  Ops& ops = device();
  // 5000 rows of 300 columns are more than one piece of staging; 21 rows leave a row tile unfinished
  for (const int rows : {21, 5000}) {
    for (const Type type : {Type::F32, Type::F16, Type::Q8_0}) {
      const int cols = 320;
      const std::vector<uint8_t> blocks = ops_case::weights(type, rows, cols, 3);
      const std::unique_ptr<Matrix> w = ops.matrix({type, rows, cols, blocks.data()}, "weights");
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (int i = 0; i < rows; ++i) ids[size_t(i)] = rows - 1 - i;
      OnDevice<int32_t> where(ops, ids);
      OnDevice<float> y(ops, size_t(rows) * cols);
      ops.embed(y, *w, where, rows);
      const Floats plain = ops_case::decoded(type, blocks, rows, cols);
      Floats expected;
      for (int i = rows - 1; i >= 0; --i) {
        expected.insert(expected.end(), plain.begin() + i * cols, plain.begin() + (i + 1) * cols);
      }
      ops_case::same_bits(std::string("rows of ") + name(type), y.values(), expected);
      if (type != Type::F32) continue;
      OnDevice<float> other(ops, Floats(size_t(rows) * cols, 7));
      ops.refill(*w, other);
      ops.embed(y, *w, where, rows);
      ops_case::same_bits("refilled rows", y.values(), Floats(size_t(rows) * cols, 7));
    }
  }
}

TEST("cuda: a replay does what its body did, with what lies in memory then") {
  const std::unique_ptr<Ops> ops = another_backend();
  OnDevice<float> x(*ops, 300), y(*ops, 300), z(*ops, 300);
  int ran = 0;
  for (int round = 0; round < 5; ++round) {
    const Floats values(300, float(round) - 2);
    ops->upload(x, values.data(), 1200);
    ops->replay(7, [&] {
      ++ran;
      ops->gelu(y, x, 300);
      ops->copy(z, y, 1200);
    });
    const Floats found = z.values();
    OnDevice<float> again(*ops, 300);
    ops->gelu(again, x, 300);
    CHECK(found == again.values());
  }
  CHECK_EQUAL(ran, 2);  // once as it is, once recorded
  ops->replay(8, [&] { ++ran; });
  CHECK_EQUAL(ran, 3);
}

TEST("cuda: a replay whose body fails, when it first runs or when it is recorded, leaves the backend as it was") {
  const std::unique_ptr<Ops> ops = another_backend();
  OnDevice<float> x(*ops, Floats(300, 1)), y(*ops, 300);
  Floats host(300);
  CHECK_ERROR(code::aborted, "first", ops->replay(1, [] { fail(code::aborted, "first"); }));
  ops->replay(1, [&] { ops->gelu(y, x, 300); });
  CHECK_ERROR(code::aborted, "second", ops->replay(1, [&] {
    ops->gelu(y, x, 300);
    fail(code::aborted, "second");
  }));
  ops->replay(2, [&] { ops->gelu(y, x, 300); });
  CHECK_ERROR(code::internal, "a download within a recording",
              ops->replay(2, [&] { ops->download(host.data(), y, 1200); }));
  CHECK_ERROR(code::internal, "taking memory within", ops->replay(2, [&] { ops->allocate(10, "test"); }));
  CHECK_ERROR(code::internal, "a replay within", ops->replay(2, [&] { ops->replay(3, [] {}); }));
  for (int round = 0; round < 3; ++round) {
    const Floats values(300, float(round));
    ops->upload(x, values.data(), 1200);
    ops->replay(1, [&] { ops->copy(y, x, 1200); });
    CHECK(y.values() == values);
  }
}

TEST("cuda: a device that is not there is refused with how many there are") {
  device();
  CHECK_ERROR(code::no_backend, "device number 1000 was asked for", cuda::make_device_ops(1000));
  CHECK_ERROR(code::no_backend, "but this machine has", cuda::make_device_ops(1000));
  CHECK_ERROR(code::no_backend, "device number -1", cuda::make_device_ops(-1));
}

#ifdef MINIGPT4_SIMT

namespace {

/// Emulated devices with these failures, until the end of the test.
struct Machine {
  explicit Machine(const char* words) { simt::configure(words); }
  ~Machine() { simt::configure(""); }
};

}  // namespace

TEST("cuda: without a driver, with an old one, without a device") {
  {
    const Machine machine("driver=none");
    CHECK_ERROR(code::no_backend, "no NVIDIA driver", cuda::device_count());
    CHECK_ERROR(code::no_backend, "needs driver 580 or newer", cuda::make_device_ops(0));
  }
  {
    const Machine machine("driver=old");
    CHECK_ERROR(code::no_backend, "knows CUDA up to 12.", cuda::device_count());
    CHECK_ERROR(code::no_backend, "needs driver 580 or newer, or a build on this machine", cuda::make_device_ops(0));
  }
  {
    const Machine machine("devices=0");
    CHECK_ERROR(code::no_backend, "no CUDA device that this process may use", cuda::make_device_ops(0));
  }
  {
    const Machine machine("capability=7.5");
    CHECK_ERROR(code::no_backend, "compute capability 7.5", cuda::make_device_ops(0));
  }
  {
    const Machine machine("image=none,capability=12.1");
    CHECK_ERROR(code::no_backend,
                "compute capability 12.1, for which this build has no kernels; a build on this machine",
                cuda::make_device_ops(0));
  }
  {
    const Machine machine("image=ptx");
    CHECK_ERROR(code::no_backend, "a driver that is older than the CUDA toolkit of this build",
                cuda::make_device_ops(0));
  }
  const Machine machine("devices=3");
  CHECK_EQUAL(cuda::device_count(), 3);
  CHECK_EQUAL(holding(*cuda::make_device_ops(2), "weights").bytes, size_t(0));
  CHECK_ERROR(code::no_backend, "this machine has 3 CUDA devices, numbers 0 to 2", cuda::make_device_ops(3));
}

TEST("cuda: copies and recorded launches keep their order when nothing runs before it must") {
  const Machine machine("streams=lazy");
  const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
  OnDevice<float> x(*ops, 3'000'000), y(*ops, 3'000'000);  // three pieces of staging
  for (int round = 0; round < 4; ++round) {
    const Floats values(3'000'000, float(round));
    ops->upload(x, values.data(), values.size() * 4);
    ops->replay(1, [&] { ops->copy(y, x, values.size() * 4); });
    CHECK(y.values() == values);
  }
}

TEST("cuda: every call that fails is told, and leaves nothing behind") {
  // what a small model's life is made of; n counts which of its calls fails
  const auto life = [] {
    const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
    const Floats values(64, 1);
    const std::unique_ptr<Matrix> w = ops->matrix({Type::F32, 2, 32, values.data()}, "weights");
    OnDevice<float> x(*ops, Floats(64, 1)), y(*ops, 64);
    for (int round = 0; round < 3; ++round) ops->replay(1, [&] { ops->gelu(y, x, 64); });
    CHECK(y.values().size() == 64);
  };
  for (const char* kind : {"malloc", "host", "memcpy", "launch", "lost"}) {
    int failures = 0;
    const size_t used = simt::device_memory_used(0);
    for (int n = 1; n < 60; ++n) {
      const Machine machine(("fail=" + std::string(kind) + ":" + std::to_string(n)).c_str());
      try {
        life();
        break;
      } catch (const Error& error) {
        ++failures;
        const std::string code = error.code();
        if (std::string(kind) == "malloc" || std::string(kind) == "host") {
          CHECK_EQUAL(code, std::string(code::out_of_memory));
        } else if (code != code::no_backend) {
          CHECK_EQUAL(code, std::string(code::cuda));
          CHECK(std::string(error.what()).find("must be loaded again") != std::string::npos);
        }
        // a lost card takes nothing back
        if (std::string(kind) != "lost") CHECK_EQUAL(simt::device_memory_used(0), used);
      }
    }
    CHECK(failures > 0 && failures < 59);
    simt::take_findings();  // the emulator notes what was asked of it
  }
  life();
}

TEST("cuda: a card that is lost fails every call from then on, and what is loaded anew works") {
  {
    const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
    OnDevice<float> x(*ops, Floats(64, 1)), y(*ops, 64);
    const Machine machine("fail=lost:1");
    for (int round = 0; round < 3; ++round) {
      CHECK_ERROR(code::cuda, "must be loaded again", ops->gelu(y, x, 64));
      CHECK_ERROR(code::cuda, "must be loaded again", y.values());
    }
    void* nothing = nullptr;
    CHECK_ERROR(code::cuda, "must be loaded again", nothing = ops->allocate(100, "test"));
    CHECK(nothing == nullptr);
  }
  simt::take_findings();
  const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
  OnDevice<float> x(*ops, Floats(64, 1));
  CHECK(x.values() == Floats(64, 1));
}

#endif

TEST("cuda: an allocation takes of the device's memory what taken() says") {
  Ops& ops = device();
  for (const size_t bytes : {size_t(3'000'000), size_t(1) << 20, (size_t(4) << 20) + 1}) {
    const size_t before = ops.room();
    void* const memory = ops.allocate(bytes, "test");
    CHECK_EQUAL(before - ops.room(), ops.taken(bytes));
    ops.release(memory);
    CHECK_EQUAL(ops.room(), before);
  }
  CHECK(ops.taken(1000) < 4096);  // many of these share a unit
}
