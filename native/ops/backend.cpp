// From the name of a device to the backend that computes on it.
#include <charconv>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "ops/cuda_plugin.h"
#include "ops/ops.h"

namespace minigpt4 {

namespace {

/// The N of "kind:N", 0 of "kind" alone; none if `device` is something else.
std::optional<int> device_index(std::string_view device, std::string_view kind) {
  if (device.substr(0, kind.size()) != kind) return std::nullopt;
  device.remove_prefix(kind.size());
  if (device.empty()) return 0;
  int index = -1;
  const char* end = device.data() + device.size();
  const auto [stop, error] = std::from_chars(device.data() + 1, end, index);
  if (device[0] != ':' || error != std::errc() || stop != end || index < 0) return std::nullopt;
  return index;
}

/// The first CUDA device if all that it needs is there and others have left it some memory, else the CPU.
std::unique_ptr<Ops> make_best_ops(const CpuOptions& cpu) {
  if (has_plugin("cuda")) {
    try {
      return make_plugin_ops("cuda", 0);
    } catch (const Error& error) {
      const std::string_view what = error.code();
      if (what != code::no_backend && what != code::out_of_memory) throw;
    }
  }
  return make_cpu_ops(cpu);
}

}  // namespace

std::unique_ptr<Ops> make_ops(const DeviceOptions& options) {
  const std::string& device = options.device;
  if (device == "cpu") return make_cpu_ops(options.cpu);
  if (device == "auto") return make_best_ops(options.cpu);
  if (const std::optional<int> index = device_index(device, "cuda")) return make_plugin_ops("cuda", *index);
  // where nobody built it, the emulator is a name like any other that is none
  if (const std::optional<int> index = device_index(device, "simt"); index && has_plugin("simt")) {
    return make_plugin_ops("simt", *index);
  }
  fail(code::no_backend, "a device is \"auto\", \"cpu\", \"cuda\" or \"cuda:N\", found \"", device, "\"");
}

}  // namespace minigpt4
