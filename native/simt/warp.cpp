// Barriers, shuffles, votes and reductions of a warp, and atomics: the work that the last lane to come does for all.
#include <bit>
#include <string>

#include "simt/execution.h"
#include "simt/gpu_simt.h"

namespace minigpt4::simt {

void misaligned(const void* address, unsigned bytes, const char* file, int line) {
  const OwnCode own;
  report(FindingKind::misaligned, file, line,
         "a load of " + std::to_string(bytes) + " bytes from an address that is " +
             std::to_string(reinterpret_cast<uintptr_t>(address) % bytes) + " more than a multiple of that");
  abandon_launch();
}

void sync_threads(const char* file, int line) { execution().barrier({file, line}); }

void sync_warp(uint32_t mask, const char* file, int line) {
  Execution& here = execution();
  if (!here.arrive("__syncwarp", mask, {file, line})) return;
  BlockInfo& block = here.block();
  ++block.warp_epoch[current->warp];
  if (events.on_syncwarp) events.on_syncwarp(block, current->warp, mask);
  here.release(mask);
}

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int lane, int width, const char* file, int line) {
  static const char* const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  Execution& here = execution();
  Context& me = *current;
  Warp& warp = here.warp();
  const int self = int(me.lane), first = self & ~(width - 1), end = first + width;
  int source = self;
  switch (kind) {
    case Shuffle::indexed:
      source = first + (lane & (width - 1));
      break;
    case Shuffle::up:
      if (self - lane >= first) source = self - lane;
      break;
    case Shuffle::down:
      if (self + lane < end) source = self + lane;
      break;
    case Shuffle::exclusive_or:
      if ((self ^ lane) < end) source = self ^ lane;
      break;
  }
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    const OwnCode own;
    report(FindingKind::shuffle, file, line, "a width of " + std::to_string(width) + ", expected 1, 2, 4, 8, 16 or 32");
    abandon_launch();
  }
  if ((mask >> source & 1) == 0) {
    const OwnCode own;
    report(FindingKind::shuffle, file, line,
           std::string(names[int(kind)]) + ": lane " + std::to_string(self) + " asks for the value of lane " +
               std::to_string(source) + ", which the mask leaves out");
    abandon_launch();
  }
  warp.value[self] = value;
  warp.source[self] = source;
  if (here.arrive(names[int(kind)], mask, {file, line})) {
    for (uint32_t left = mask; left; left &= left - 1) {
      const int to = std::countr_zero(left);
      warp.result[to] = warp.value[warp.source[to]];
    }
    here.release(mask);
  }
  return warp.result[self];
}

uint32_t vote(Vote kind, uint32_t mask, bool predicate, const char* file, int line) {
  static const char* const names[] = {"__ballot_sync", "__any_sync", "__all_sync"};
  Execution& here = execution();
  Warp& warp = here.warp();
  const unsigned self = current->lane;
  warp.value[self] = predicate;
  if (here.arrive(names[int(kind)], mask, {file, line})) {
    uint32_t set = 0;
    for (uint32_t left = mask; left; left &= left - 1) {
      const int lane = std::countr_zero(left);
      set |= uint32_t(warp.value[lane]) << lane;
    }
    const uint32_t outcome = kind == Vote::ballot ? set : kind == Vote::any ? set != 0 : set == mask;
    for (uint32_t left = mask; left; left &= left - 1) warp.result[std::countr_zero(left)] = outcome;
    here.release(mask);
  }
  return uint32_t(warp.result[self]);
}

namespace {

uint32_t combine(Reduce kind, uint32_t a, uint32_t b) {
  switch (kind) {
    case Reduce::add:
      return a + b;
    case Reduce::min_signed:
      return int32_t(a) < int32_t(b) ? a : b;
    case Reduce::max_signed:
      return int32_t(a) > int32_t(b) ? a : b;
    case Reduce::min_unsigned:
      return a < b ? a : b;
    case Reduce::max_unsigned:
      return a > b ? a : b;
    case Reduce::bit_and:
      return a & b;
    case Reduce::bit_or:
      return a | b;
    case Reduce::bit_xor:
      break;
  }
  return a ^ b;
}

template <class T>
T changed(Atomic kind, T old, T value) {
  switch (kind) {
    case Atomic::add:
      if constexpr (std::is_same_v<T, int>) return int(unsigned(old) + unsigned(value));
      return old + value;
    case Atomic::min:
      return value < old ? value : old;
    case Atomic::max:
      return value > old ? value : old;
    case Atomic::exchange:
      return value;
    default:
      break;
  }
  if constexpr (std::is_integral_v<T>) {
    return kind == Atomic::bit_and ? old & value : kind == Atomic::bit_or ? old | value : old ^ value;
  }
  return value;
}

template <class T>
void before_atomic(T* address, const char* file, int line) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) misaligned(address, sizeof(T), file, line);
  if (events.on_atomic) events.on_atomic(*current, address, sizeof(T), {file, line});
}

}  // namespace

uint32_t reduce(Reduce kind, uint32_t mask, uint32_t value, const char* file, int line) {
  static const char* const names[] = {"__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
                                      "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync",
                                      "__reduce_or_sync",  "__reduce_xor_sync"};
  Execution& here = execution();
  Warp& warp = here.warp();
  const unsigned self = current->lane;
  warp.value[self] = value;
  if (here.arrive(names[int(kind)], mask, {file, line})) {
    uint32_t left = mask;
    uint32_t outcome = uint32_t(warp.value[std::countr_zero(left)]);
    for (left &= left - 1; left; left &= left - 1) {
      outcome = combine(kind, outcome, uint32_t(warp.value[std::countr_zero(left)]));
    }
    for (left = mask; left; left &= left - 1) warp.result[std::countr_zero(left)] = outcome;
    here.release(mask);
  }
  return uint32_t(warp.result[self]);
}

// All threads of a launch share one thread of the host, so plain reads and writes are atomic.
template <class T>
T atomic(Atomic kind, T* address, T value, const char* file, int line) {
  before_atomic(address, file, line);
  const T old = *address;
  *address = changed(kind, old, value);
  return old;
}
template int atomic(Atomic, int*, int, const char*, int);
template unsigned atomic(Atomic, unsigned*, unsigned, const char*, int);
template unsigned long long atomic(Atomic, unsigned long long*, unsigned long long, const char*, int);
template float atomic(Atomic, float*, float, const char*, int);

template <class T>
T atomic_compare_exchange(T* address, T expected, T value, const char* file, int line) {
  before_atomic(address, file, line);
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}
template int atomic_compare_exchange(int*, int, int, const char*, int);
template unsigned atomic_compare_exchange(unsigned*, unsigned, unsigned, const char*, int);
template unsigned long long atomic_compare_exchange(unsigned long long*, unsigned long long, unsigned long long,
                                                    const char*, int);

}  // namespace minigpt4::simt
