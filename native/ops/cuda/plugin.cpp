// The plug-in's side of the border (ops/plugin.h): the same file for the device and for the emulator.
#include "ops/plugin.h"

#include <cstdio>

#include "core/error.h"
#include "ops/cuda/devices.h"

namespace minigpt4::cuda {

namespace {

using plugin::Failure;

void write(Failure* failure, const Error& error) noexcept {
  std::snprintf(failure->code, sizeof failure->code, "%s", error.code());
  std::snprintf(failure->text, sizeof failure->text, "%s", error.what());
}

bool guard(void (*body)(void*), void* context, Failure* failure) {
  try {
    body(context);
    return true;
  } catch (...) {
    write(failure, as_error(std::current_exception()));
    return false;
  }
}

void stop() { throw Error(code::internal, "the caller's part of a recorded step failed"); }

}  // namespace

}  // namespace minigpt4::cuda

extern "C" __attribute__((visibility("default"))) const minigpt4::plugin::Table* minigpt4_ops_plugin() {
  using namespace minigpt4;
  static const plugin::Table table = {plugin::kInterface, cuda::guard, cuda::stop, cuda::make_device_ops};
  return &table;
}
