// The functions that g++ -fsanitize=thread calls: before each load and store, with its address, and in place of each
// atomic operation. Names and signatures are the compiler's (gcc/sanitizer.def). Kernels use CUDA's atomics, so the atomic
// ones here come from host code in kernel files and only do what they say.
#include <cstddef>
#include <cstdint>

#include "simt/hooks.h"
#include "simt/shadow_cell.h"

using minigpt4::simt::hooked_access;
using minigpt4::simt::kind_read;
using minigpt4::simt::kind_write;

#define HERE __builtin_return_address(0)

#define SIZED(bytes)                                                                                         \
  void __tsan_read##bytes(void* p) { hooked_access(p, bytes, kind_read, true, HERE); }                       \
  void __tsan_write##bytes(void* p) { hooked_access(p, bytes, kind_write, true, HERE); }                     \
  void __tsan_unaligned_read##bytes(void* p) { hooked_access(p, bytes, kind_read, false, HERE); }            \
  void __tsan_unaligned_write##bytes(void* p) { hooked_access(p, bytes, kind_write, false, HERE); }          \
  void __tsan_volatile_read##bytes(void* p) { hooked_access(p, bytes, kind_read, true, HERE); }              \
  void __tsan_volatile_write##bytes(void* p) { hooked_access(p, bytes, kind_write, true, HERE); }            \
  void __tsan_unaligned_volatile_read##bytes(void* p) { hooked_access(p, bytes, kind_read, false, HERE); }   \
  void __tsan_unaligned_volatile_write##bytes(void* p) { hooked_access(p, bytes, kind_write, false, HERE); } \
  void __tsan_read_write##bytes(void* p) {                                                                   \
    hooked_access(p, bytes, kind_read, true, HERE);                                                          \
    hooked_access(p, bytes, kind_write, true, HERE);                                                         \
  }                                                                                                          \
  void __tsan_unaligned_read_write##bytes(void* p) {                                                         \
    hooked_access(p, bytes, kind_read, false, HERE);                                                         \
    hooked_access(p, bytes, kind_write, false, HERE);                                                        \
  }

#define ATOMIC(bits, type)                                                                                      \
  type __tsan_atomic##bits##_load(const volatile type* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); } \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int) {                                          \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_and(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_or(volatile type* p, type v, int) {                                          \
    return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                                           \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_xor(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_nand(volatile type* p, type v, int) {                                        \
    return __atomic_fetch_nand(p, v, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                             \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* expected, type v, int, int) {       \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);              \
  }                                                                                                             \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* p, type* expected, type v, int, int) {         \
    return __atomic_compare_exchange_n(p, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);               \
  }

extern "C" {

void __tsan_init() { minigpt4::simt::install_hooks(); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void*) {}
/// A constructor sets an object's virtual table pointer.
void __tsan_vptr_update(void** p, void*) {
  hooked_access(static_cast<void*>(p), sizeof(void*), kind_write, true, HERE);
}
void __tsan_vptr_read(void** p) { hooked_access(static_cast<void*>(p), sizeof(void*), kind_read, true, HERE); }

SIZED(1)
SIZED(2)
SIZED(4)
SIZED(8)
SIZED(16)

void __tsan_read_range(void* p, size_t bytes) { hooked_access(p, bytes, kind_read, false, HERE); }
void __tsan_write_range(void* p, size_t bytes) { hooked_access(p, bytes, kind_write, false, HERE); }

ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"
