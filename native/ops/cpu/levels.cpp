// Asks what the processor knows: itself (cpuid) and the system (xgetbv) for the registers it saves; on ARM the system.
#include "ops/cpu/levels.h"

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#ifdef MINIGPT4_LEVEL_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/error.h"
#include "ops/ops.h"

namespace minigpt4::cpu {

namespace {

struct Features {
  // with all that the level of that name needs
  bool avx2 = false, avx_vnni = false, avx512 = false, amx = false, neon = false, neon_i8mm = false;
};

#if defined(__aarch64__) && defined(__APPLE__)
bool system_says(const char* name) {
  int yes = 0;
  size_t bytes = sizeof yes;
  return sysctlbyname(name, &yes, &bytes, nullptr, 0) == 0 && yes != 0;
}
#endif

Features features() {
  Features found;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const auto bit = [](unsigned word, int n) { return (word >> n & 1) != 0; };
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool fma = bit(c, 12), xsave = bit(c, 27), avx = bit(c, 28), f16c = bit(c, 29);
  if (!fma || !xsave || !avx || !f16c) return found;
  unsigned saved = 0, saved_high = 0;
  asm volatile("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
  constexpr unsigned ymm = 0x06, zmm = 0xe6;  // xmm and ymm; also masks and both halves of zmm
  constexpr unsigned tiles = 3u << 17;        // their configuration and they themselves
  if ((saved & ymm) != ymm) return found;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  found.avx2 = bit(b, 5);
  const bool f = bit(b, 16), dq = bit(b, 17), bw = bit(b, 30), vl = bit(b, 31), vnni = bit(c, 11);
  found.avx512 = found.avx2 && f && dq && bw && vl && vnni && (saved & zmm) == zmm;
  const bool amx_bf16 = bit(d, 22), amx_tile = bit(d, 24), amx_int8 = bit(d, 25);
  found.amx = found.avx512 && amx_bf16 && amx_tile && amx_int8 && (saved & tiles) == tiles;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) found.avx_vnni = found.avx2 && bit(a, 4);
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long dot_products = 1ul << 20, matrix_products = 1ul << 13;  // HWCAP_ASIMDDP, HWCAP2_I8MM
  found.neon = (getauxval(AT_HWCAP) & dot_products) != 0;
  found.neon_i8mm = found.neon && (getauxval(AT_HWCAP2) & matrix_products) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  found.neon = system_says("hw.optional.arm.FEAT_DotProd");
  found.neon_i8mm = found.neon && system_says("hw.optional.arm.FEAT_I8MM");
#endif
  return found;
}

#ifdef MINIGPT4_LEVEL_AMX
/// Linux hands tiles to a process that asks for them, once for all of its threads. It refuses where it knows none, or where
/// a thread's signal stack has no room for them.
bool tiles_granted() {
  constexpr long request_permission = 0x1023, tile_data = 18;  // the kernel's ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
}
#endif

std::vector<const Level*>& added_levels() {
  static std::vector<const Level*> levels;
  return levels;
}

}  // namespace

void add_level(const Level& level) { added_levels().push_back(&level); }

std::vector<const Level*> available_levels() {
  [[maybe_unused]] const Features cpu = features();
  std::vector<const Level*> levels{&level_scalar()};
  levels.insert(levels.end(), added_levels().begin(), added_levels().end());
#ifdef MINIGPT4_LEVEL_AVX2
  if (cpu.avx2) levels.push_back(&level_avx2());
#endif
#ifdef MINIGPT4_LEVEL_AVX_VNNI
  if (cpu.avx_vnni) levels.push_back(&level_avx_vnni());
#endif
#ifdef MINIGPT4_LEVEL_AVX512
  if (cpu.avx512) levels.push_back(&level_avx512());
#endif
#ifdef MINIGPT4_LEVEL_AMX
  if (cpu.amx && tiles_granted()) levels.push_back(&level_amx());
#endif
#ifdef MINIGPT4_LEVEL_NEON
  if (cpu.neon) levels.push_back(&level_neon());
#endif
#ifdef MINIGPT4_LEVEL_NEON_I8MM
  if (cpu.neon_i8mm) levels.push_back(&level_neon_i8mm());
#endif
  return levels;
}

const Level& choose_level(const std::string& name) {
  const std::vector<const Level*> levels = available_levels();
  const char* forced = std::getenv("MINIGPT4_CPU_LEVEL");
  const bool from_environment = name.empty() && forced && *forced;
  const std::string wanted = from_environment ? forced : name;
  if (wanted.empty()) return *levels.back();
  std::string names;
  for (const Level* level : levels) {
    if (wanted == level->name) return *level;
    names += (names.empty() ? "" : ", ") + std::string(level->name);
  }
  fail(code::no_backend, "the CPU level \"", wanted, "\"", from_environment ? " of MINIGPT4_CPU_LEVEL" : "",
       " is not one that this build and this processor have: ", names);
}

}  // namespace minigpt4::cpu

namespace minigpt4 {

std::vector<std::string> cpu_levels() {
  std::vector<std::string> names;
  for (const cpu::Level* level : cpu::available_levels()) names.emplace_back(level->name);
  return names;
}

}  // namespace minigpt4
