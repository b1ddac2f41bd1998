// Where in the machine an address of a kernel lies, and the words that say how it misses what it was meant for.
#pragma once

#include <cstddef>
#include <string>

#include "simt/context.h"

namespace minigpt4::simt::shadow {

/// The image is the program's or library's own: tables of constants. Nowhere is memory of the host, freed memory, null.
enum class Space { stack, shared, global, image, other_stack, nowhere };

/// Where an address lies as the running thread sees it. `thread` tells whose stack is its own.
Space space_of(const Context& thread, const void* address);

/// Empty if [at, at + bytes) lies wholly in a living array of the block's shared memory, else how it does not.
std::string misses_shared(const BlockInfo& block, const void* at, size_t bytes);
/// How an address in no allocation misses the nearest one: "lies 4 bytes behind the 1024 bytes of an allocation".
std::string misses_global(const void* at, size_t bytes);

}  // namespace minigpt4::simt::shadow
