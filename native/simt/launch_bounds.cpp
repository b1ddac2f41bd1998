#include "simt/launch_bounds.h"

#include <algorithm>
#include <cstdint>

#include "simt/context.h"

#ifdef SIMT_LAUNCH_BOUNDS
// of the linker, around the section of that name; absent where no kernel has bounds
extern "C" {
__attribute__((weak, visibility("hidden"))) extern const std::uintptr_t __start___patchable_function_entries[];
__attribute__((weak, visibility("hidden"))) extern const std::uintptr_t __stop___patchable_function_entries[];
}
#endif

namespace minigpt4::simt {

unsigned launch_bounds(const void* kernel) {
#ifdef SIMT_LAUNCH_BOUNDS
  constexpr unsigned char empty = 0x90;
  const auto* const code = static_cast<const unsigned char*>(kernel);
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(kernel);
  for (const std::uintptr_t* entry = __start___patchable_function_entries; entry != __stop___patchable_function_entries;
       ++entry) {
    if (*entry >= at || at - *entry > block_threads_limit) continue;
    const unsigned threads = unsigned(at - *entry);
    // else they stand before another function, which lies between
    if (std::all_of(code - threads, code, [](unsigned char byte) { return byte == empty; })) return threads;
  }
#else
  (void)kernel;
#endif
  return block_threads_limit;
}

}  // namespace minigpt4::simt
