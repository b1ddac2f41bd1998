// From the name of a device to the backend that computes on it.
#include <charconv>

#include "core/error.h"
#include "ops/cuda_backend.h"
#include "ops/ops.h"

namespace minigpt4 {

std::unique_ptr<Ops> make_ops(const DeviceOptions& options) {
  const std::string& device = options.device;
  if (device == "cpu" || (device == "auto" && !cuda_available())) return make_cpu_ops(options.cpu);
  if (device == "auto" || device == "cuda") return make_cuda_ops(0);
  const std::string prefix = "cuda:";
  if (device.rfind(prefix, 0) == 0) {
    int index = -1;
    const char *begin = device.data() + prefix.size(), *end = device.data() + device.size();
    const auto [stop, error] = std::from_chars(begin, end, index);
    if (error == std::errc() && stop == end && index >= 0) return make_cuda_ops(index);
  }
  fail(code::no_backend, "a device is \"auto\", \"cpu\", \"cuda\" or \"cuda:N\", found \"", device, "\"");
}

}  // namespace minigpt4
