// What a kernel says of its largest block, with the words and in the place that CUDA has for it. g++ leaves as many empty
// instructions before the function as it allows threads, and notes in a section of the program where they begin.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define SIMT_LAUNCH_BOUNDS 1
#define SIMT_THREADS_AT_MOST(threads, ...) __attribute__((patchable_function_entry((threads), (threads))))
#define __launch_bounds__(...) SIMT_THREADS_AT_MOST(__VA_ARGS__, 0)
#else
#define __launch_bounds__(...)
#endif

namespace minigpt4::simt {

/// The most threads of a block that the kernel is compiled for: the device's own limit where the kernel does not say, or
/// where this compiler cannot tell.
unsigned launch_bounds(const void* kernel);

}  // namespace minigpt4::simt
