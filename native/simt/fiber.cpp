#include "simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "simt/context.h"

#ifdef SIMT_PORTABLE_SWITCH
#include <ucontext.h>
#else
// What a function may not change is pushed, the stack pointers are exchanged, and the other fiber's are popped.
extern "C" void minigpt4_simt_switch(void** save, void* resume);
extern "C" void minigpt4_simt_start(void** save, void* stack, void (*entry)());
asm(R"(
.text
.p2align 4
.hidden minigpt4_simt_switch
.globl minigpt4_simt_switch
.type minigpt4_simt_switch, @function
minigpt4_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size minigpt4_simt_switch, .-minigpt4_simt_switch
.p2align 4
.hidden minigpt4_simt_start
.globl minigpt4_simt_start
.type minigpt4_simt_start, @function
minigpt4_simt_start:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  xorl %ebp, %ebp
  call *%rdx
  ud2
.size minigpt4_simt_start, .-minigpt4_simt_start
)");
#endif

namespace minigpt4::simt {

#ifdef SIMT_PORTABLE_SWITCH
void switch_fiber(FiberState& from, FiberState& to) {
  if (_setjmp(from.registers) == 0) _longjmp(to.registers, 1);
}
void start_fiber(FiberState& from, std::byte* begin, std::byte* end, void (*entry)()) {
  if (_setjmp(from.registers) != 0) return;
  ucontext_t fresh;
  getcontext(&fresh);
  fresh.uc_stack.ss_sp = begin;
  fresh.uc_stack.ss_size = size_t(end - begin);
  fresh.uc_link = nullptr;
  makecontext(&fresh, entry, 0);
  setcontext(&fresh);
}
#else
void switch_fiber(FiberState& from, FiberState& to) { minigpt4_simt_switch(&from.stack_pointer, to.stack_pointer); }
void start_fiber(FiberState& from, std::byte*, std::byte* end, void (*entry)()) {
  minigpt4_simt_start(&from.stack_pointer, end, entry);
}
#endif

namespace {

constexpr size_t stack_bytes = 128 * 1024, page = 4096;

struct Stacks {
  std::byte* memory;
  size_t guard, stride;
  Stack all[stacks_count];

  Stacks() {
    const size_t system_page = size_t(sysconf(_SC_PAGESIZE));
    guard = system_page > page ? system_page : page;
    stride = stack_bytes + guard;
    void* mapped = mmap(nullptr, stride * stacks_count, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    memory = static_cast<std::byte*>(mapped);
    for (unsigned i = 0; i < stacks_count; ++i) {
      std::byte* low = memory + i * stride;
      if (mprotect(low, guard, PROT_NONE) != 0) throw std::bad_alloc();
      all[i].begin = low + guard;
      all[i].top = low + stride - size_t(i % 16) * 320;
    }
  }
};

Stacks& the_stacks() {
  static Stacks made;
  return made;
}

}  // namespace

Stack* stacks() { return the_stacks().all; }
AddressRange all_stacks() {
  const Stacks& made = the_stacks();
  return {made.memory, made.memory + made.stride * stacks_count};
}

}  // namespace minigpt4::simt
