// The choice of a CPU backend and its level, its memory, and devices by name.
#include "ops_case.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "check.h"

using namespace minigpt4;

TEST("ops: the scalar level is always there, and a level can be forced") {
  const std::vector<std::string> levels = cpu_levels();
  std::string names;
  for (const std::string& level : levels) names += (names.empty() ? "" : ", ") + level;
  std::printf("levels: %s\n", names.c_str());  // what scripts/test.mjs expects of an emulated processor
  CHECK(!levels.empty());
  CHECK_EQUAL(levels.front(), "scalar");
  for (const std::string& level : levels) {
    CHECK_EQUAL(make_cpu_ops({1, level})->describe(), "cpu " + level + ", 1 thread");
  }
  CHECK_EQUAL(make_cpu_ops({2, ""})->describe().find("cpu "), size_t(0));
  CHECK_ERROR(code::no_backend, "scalar", make_cpu_ops({1, "mmx"}));

  const char* before = std::getenv("MINIGPT4_CPU_LEVEL");
  const std::string kept = before ? before : "";
  setenv("MINIGPT4_CPU_LEVEL", "scalar", 1);
  CHECK_EQUAL(make_cpu_ops({1, ""})->describe(), "cpu scalar, 1 thread");
  CHECK_EQUAL(make_cpu_ops({1, levels.back()})->describe(), "cpu " + levels.back() + ", 1 thread");
  setenv("MINIGPT4_CPU_LEVEL", "8086", 1);
  CHECK_ERROR(code::no_backend, "8086", make_cpu_ops({1, ""}));
  before ? setenv("MINIGPT4_CPU_LEVEL", kept.c_str(), 1) : unsetenv("MINIGPT4_CPU_LEVEL");
}

TEST("ops: devices by name") {
  DeviceOptions options;
  options.device = "cpu";
  CHECK_EQUAL(make_ops(options)->describe().substr(0, 4), "cpu ");
  options.device = "gpu";
  CHECK_ERROR(code::no_backend, "\"gpu\"", make_ops(options));
  options.device = "cuda:x";
  CHECK_ERROR(code::no_backend, "cuda:x", make_ops(options));
}

TEST("ops: memory is aligned and reported by owner") {
  std::unique_ptr<Ops> ops = make_cpu_ops({1, ""});
  void* piece = ops->allocate(1000, "some owner");
  CHECK_EQUAL(reinterpret_cast<uintptr_t>(piece) % 64, uintptr_t(0));
  size_t held = 0;
  for (const Holding& holding : ops->holdings()) held += holding.owner == "some owner" ? holding.bytes : 0;
  CHECK_EQUAL(held, size_t(1000));
  ops->release(piece);
}

TEST("ops: a matrix outlives its backend") {
  const std::vector<uint8_t> blocks = ops_case::weights(Type::Q4_0, 20, 64, 1);
  std::unique_ptr<Matrix> matrix;
  {
    std::unique_ptr<Ops> ops = make_cpu_ops({1, ""});
    matrix = ops->matrix({Type::Q4_0, 20, 64, blocks.data()}, "weights");
  }
  CHECK_EQUAL(matrix->rows, 20);
  CHECK(matrix->bytes > 0);
}

// The tests of bit equality compare the levels that this processor has: one that it lacks is counted as skipped, so that
// nobody takes less for more.
static void expect_level(const char* level) {
  const std::vector<std::string> levels = cpu_levels();
  if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
    throw check::Skip{std::string("neither run nor compared here: level ") + level};
  }
  CHECK_EQUAL(make_cpu_ops({1, level})->describe(), "cpu " + std::string(level) + ", 1 thread");
}

#if defined(__aarch64__)
TEST("ops: level neon takes part") { expect_level("neon"); }

TEST("ops: level neon-i8mm takes part") { expect_level("neon-i8mm"); }
#else
TEST("ops: level avx2 takes part") { expect_level("avx2"); }

TEST("ops: level avx-vnni takes part") { expect_level("avx-vnni"); }  // its model does where avx512 does

TEST("ops: level avx512 takes part") { expect_level("avx512"); }

TEST("ops: level amx takes part") { expect_level("amx"); }  // its models do everywhere
#endif
