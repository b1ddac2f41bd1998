// What the CUDA runtime says about drivers and devices, in words. Return codes are read, never the count: without a driver
// the runtime leaves it as it was.
#include "ops/cuda/devices.h"

#include <fstream>
#include <string>

#include "core/error.h"
#include "ops/cuda/cuda_ops.h"

namespace minigpt4::cuda {

namespace {

/// "550.54.15", as the kernel module tells; empty where there is none.
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string word;
  while (file >> word) {
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  }
  return {};
}

/// CUDA's version numbers are 1000 times the first number and 10 times the second.
std::string cuda_version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number / 10 % 100); }

[[noreturn]] void fail_on_driver() {
  int runtime = 0, supported = 0;
  cudaRuntimeGetVersion(&runtime);
  // from NVIDIA's table of compatibility: CUDA 12 runs from driver 525 on, CUDA 13 from 580 on
  const int needed = runtime >= 13000 ? 580 : 525;
  if (cudaDriverGetVersion(&supported) != cudaSuccess || supported == 0) {
    fail(code::no_backend, "this machine has no NVIDIA driver; CUDA ", cuda_version(runtime), " needs driver ", needed,
         " or newer");
  }
  const std::string driver = driver_version();
  fail(code::no_backend, "the NVIDIA driver", driver.empty() ? "" : " " + driver, " of this machine knows CUDA up to ",
       cuda_version(supported), ", and this build is of CUDA ", cuda_version(runtime), ": it needs driver ", needed,
       " or newer, or a build on this machine with a CUDA toolkit that the driver knows");
}

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  cudaGetLastError();  // else a later call would find it
  if (status == cudaErrorInsufficientDriver) fail_on_driver();
  if (status == cudaErrorNoDevice || status == cudaSuccess) {
    fail(code::no_backend, "this machine has an NVIDIA driver, but no CUDA device that this process may use");
  }
  fail(code::no_backend, "the CUDA runtime could not start: ", cudaGetErrorName(status), " (",
       cudaGetErrorString(status), ")");
}

std::unique_ptr<Ops> make_device_ops(int index) { return std::make_unique<CudaOps>(index); }

}  // namespace minigpt4::cuda
