// Stacks to run on and the switch between them: one fiber for each CUDA thread of a block.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(MINIGPT4_SIMT_PORTABLE_SWITCH)
#define SIMT_PORTABLE_SWITCH 1
#include <setjmp.h>
#endif

namespace minigpt4::simt {

/// Where a fiber stopped, to go on from there.
struct FiberState {
#ifdef SIMT_PORTABLE_SWITCH
  jmp_buf registers;
#else
  void* stack_pointer;
#endif
};

/// Stops here, goes on where `to` stopped. Returns when somebody goes on with `from`.
void switch_fiber(FiberState& from, FiberState& to);
/// Stops here and calls entry(), which never returns, on the stack [begin, end); end is 64-byte aligned.
void start_fiber(FiberState& from, std::byte* begin, std::byte* end, void (*entry)());

/// One of the stacks: 128 KB with an inaccessible page below. `top` is 64-byte aligned and differs between stacks by
/// more than the distance, so that what all fibers use at once doesn't fall into one set of the CPU's cache.
struct Stack {
  std::byte* begin = nullptr;
  std::byte* top = nullptr;
  uint64_t launch = 0;  // whose arguments lie at the top
};
inline constexpr unsigned stacks_count = 1024;
/// All of them, reserved at the first call and kept; pages are used when touched. Throws std::bad_alloc.
Stack* stacks();

}  // namespace minigpt4::simt
