// Turns the SIGBUS of reading a mapped file that was truncated into a mark that can be asked for.
#pragma once

#include <cstddef>
#include <string>

namespace minigpt4 {

/// Watches [data, data + bytes), a mapping of `path`, and returns the entry's number. The first call installs the
/// process's SIGBUS handler; faults outside of watched mappings go on to the handler that was there before.
/// Error ERR_OUT_OF_MEMORY when the table is full.
size_t watch_mapping(const void* data, size_t bytes, const std::string& path);
/// Before the mapping is undone.
void unwatch_mapping(size_t entry) noexcept;
/// True if a page of the mapping could not be read since it is watched. It, and all after it, read as zeros then.
bool mapping_is_damaged(size_t entry) noexcept;

}  // namespace minigpt4
