// The loops that limits are measured with: that they do what they count, and the errors of measuring.
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "ops/cpu/levels.h"
#include "ops/ops.h"

using namespace minigpt4;

namespace {

constexpr size_t kBytes = size_t(8) << 20;

uint64_t result_of(cpu::PeakLoop loop, int64_t rounds, float addend, uint8_t code) {
  uint64_t result = 0;
  loop(rounds, {0.5f, addend, code, &result});
  return result;
}

}  // namespace

TEST("measuring the machine: reading sees every byte at every level") {
  constexpr size_t kPage = 4096;
  std::vector<uint8_t> memory(3 * kPage);
  for (const cpu::Level* level : cpu::available_levels()) {
    CHECK_EQUAL(level->peaks.read(memory.data(), memory.size()), 0u);
    for (const size_t at : {size_t(0), size_t(1), kPage - 1, kPage, 2 * kPage + 1777, memory.size() - 1}) {
      memory[at] = 5;
      CHECK_EQUAL(level->peaks.read(memory.data(), memory.size()), 5u);
      memory[at] = 0;
    }
  }
}

TEST("measuring the machine: loops count what they do, and do it") {
  for (const cpu::Level* level : cpu::available_levels()) {
    const cpu::Peaks& peaks = level->peaks;
    for (const cpu::PeakLoop loop : {peaks.fma, peaks.dot, peaks.tile_int8, peaks.tile_bf16}) {
      if (!loop) continue;
      uint64_t result = 0;
      const cpu::PeakSeed seed{0.5f, 1, 1, &result};
      const double once = loop(1, seed);
      CHECK(once > 0);
      CHECK_EQUAL(loop(100, seed), 100 * once);
    }
    // sums go to addend / (1 - 0.5) in every lane: with another addend another sum, with more rounds the same
    const uint64_t sum = result_of(peaks.fma, 100, 8, 1);
    CHECK(sum > 0 && sum != result_of(peaks.fma, 100, 64, 1));
    CHECK_EQUAL(sum, result_of(peaks.fma, 200, 8, 1));
    if (peaks.dot) CHECK(result_of(peaks.dot, 3, 1, 1) != result_of(peaks.dot, 3, 1, 2));
    // one element of a product: three rounds of 64 products 2 · 2, and of 32 products ½ · ½
    if (peaks.tile_int8) CHECK_EQUAL(result_of(peaks.tile_int8, 3, 1, 2), 3u * 64 * 4);
    if (peaks.tile_bf16) CHECK_EQUAL(result_of(peaks.tile_bf16, 3, 1, 1), std::bit_cast<uint32_t>(3 * 32 * 0.25f));
  }
}

TEST("measuring the machine: every level with one and several threads") {
  for (const std::string& level : cpu_levels()) {
    for (const int threads : {1, 2}) {
      const MachineRates rates = measure_machine({threads, level}, kBytes, 1);
      CHECK_EQUAL(rates.level, level);
      CHECK_EQUAL(rates.threads, threads);
      for (const PeakRate& rate : {rates.read, rates.fma, rates.dot.value_or(rates.fma)}) {
        CHECK(std::isfinite(rate.best) && rate.median > 0 && rate.best >= rate.median);
      }
      CHECK(rates.waited_share <= 1);
    }
  }
}

TEST("measuring the machine: what cannot be measured is an error") {
  CHECK_ERROR(code::argument, "passes", measure_machine({1, ""}, kBytes, 0));
  CHECK_ERROR(code::argument, "8388608 or more, found 4096", measure_machine({1, ""}, 4096, 1));
  CHECK_ERROR(code::argument, "threads", measure_machine({-1, ""}, kBytes, 1));
  CHECK_ERROR(code::no_backend, "nonsense", measure_machine({1, "nonsense"}, kBytes, 1));
  CHECK_ERROR(code::out_of_memory, "memory to be read", measure_machine({1, ""}, size_t(1) << 47, 1));
}
