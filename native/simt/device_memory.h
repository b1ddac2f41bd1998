// The memory of the emulated devices: host memory that knows where it begins and ends, full of 0xFF when new.
#pragma once

#include <cstddef>

#include "simt/context.h"

namespace minigpt4::simt {

/// 256-byte aligned, as cudaMalloc gives it; null when the host itself has no more. `bytes` is at least 1.
DeviceAllocation* allocate_device_memory(int device, size_t bytes);
/// False when nothing begins there. Reports what was written around it.
bool free_device_memory(void* begin);
/// What an allocation of so many bytes takes of a device's: pieces of 1 MiB and more are handed out in units of 2 MiB, smaller
/// ones share such a unit.
size_t device_memory_taken(size_t bytes);
/// Bytes taken at the moment.
size_t device_memory_used(int device);
/// Whether [p, p + bytes) touches any allocation.
bool touches_device_memory(const void* p, size_t bytes);

}  // namespace minigpt4::simt
