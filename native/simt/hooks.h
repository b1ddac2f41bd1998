// Joins the emulator's events and the compiler's hooks (hooks_tsan.cpp) to the memory checker (shadow.h) and the memory
// report (traffic.h). A program whose kernel files were compiled with -fsanitize=thread, linked to this instead of that
// sanitizer's library, checks itself from its first launch on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minigpt4::simt {

/// Starts listening to the emulator. Called by every hooked file before main; more calls do nothing.
void install_hooks();

/// A load or store of a kernel, before it happens. With `aligned` the compiler took the address for a multiple of `bytes`.
void hooked_access(const void* address, size_t bytes, uint8_t kind, bool aligned, const void* return_address);

}  // namespace minigpt4::simt
