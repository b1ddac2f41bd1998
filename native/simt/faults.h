// What the emulated devices are like, and the failures that a test asks for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "simt/runtime.h"

namespace minigpt4::simt {

struct DeviceShape {
  int devices = 1;                  // 0: cudaErrorNoDevice
  size_t memory = size_t(8) << 30;  // of each device
  size_t shared = 227 * 1024;       // largest shared memory of a block
  int processors = 132;
  int major = 9, minor = 0;
  cudaError_t image =
      cudaSuccess;     // of every launch, where the program has no code that the device and its driver read
  int driver = 13000;  // CUDA version of the driver, as cudaDriverGetVersion has it; below 13000: too old; 0: none
};

/// Words separated by commas, as in the environment variable MINIGPT4_SIMT, which is read at the first call of the
/// runtime: devices=N, memory=BYTES, shared=BYTES, processors=N, capability=MAJOR.MINOR, driver=old|none,
/// image=none|ptx (no code for the device; or code that a newer driver than this one would compile for it),
/// fail=malloc:N | host:N | memcpy:N | launch:N | lost:N (may stand several times), order=fifo|lifo|random|priority,
/// seed=N, streams=eager|lazy (lazy: work runs when something waits for it, in random turns of the streams).
/// `fail=malloc:3` lets the third cudaMalloc from now on fail, once; host is cudaMallocHost; memcpy counts
/// memsets too; launch counts kernels that are started (a captured one does not count, each replay of a graph is one);
/// from the N-th of all these calls and synchronisations on, with lost:N, every call fails, as of a card that is gone.
/// Starts all counts anew and brings a lost device back; what is allocated stays.
/// Errors: ERR_ARGUMENT for anything else.
void configure(std::string_view words);

DeviceShape device_shape();

enum class Call { allocate, allocate_host, copy, launch, synchronise };
/// Counts a call and says whether it is to fail. Also the error of missing devices and drivers.
cudaError_t next_call(Call call);
/// For calls that no word counts: the error of missing drivers and devices, or of a lost one.
cudaError_t device_error();

}  // namespace minigpt4::simt
