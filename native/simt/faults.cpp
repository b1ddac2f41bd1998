#include "simt/faults.h"

#include <charconv>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"
#include "simt/report.h"
#include "simt/streams.h"

namespace minigpt4::simt {

namespace {

constexpr int runtime_version = 13000;

struct State {
  DeviceShape shape;
  std::map<std::string, uint64_t> fail;  // by word: the number of the call
  std::map<Call, uint64_t> calls;
  uint64_t all_calls = 0;
  bool lost = false;
  bool lazy = false;  // streams
};

std::mutex lock;
State state;
bool configured = false;

uint64_t number(std::string_view word, std::string_view text, uint64_t least) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least) {
    fail(code::argument, "the emulator's word \"", word, "\" has \"", text, "\", expected a whole number of ", least,
         " or more");
  }
  return value;
}

void apply(std::string_view word, State& next, Options& run) {
  const size_t equals = word.find('=');
  const std::string_view key = word.substr(0, equals);
  const std::string_view value = equals == std::string_view::npos ? "" : word.substr(equals + 1);
  if (key == "devices") {
    next.shape.devices = int(number(word, value, 0));
  } else if (key == "memory") {
    next.shape.memory = number(word, value, 1);
  } else if (key == "shared") {
    next.shape.shared = number(word, value, 48 * 1024);
  } else if (key == "processors") {
    next.shape.processors = int(number(word, value, 1));
  } else if (key == "capability") {
    const size_t point = value.find('.');
    if (point == std::string_view::npos) {
      fail(code::argument, "the emulator's word \"", word, "\" is not like capability=9.0");
    }
    next.shape.major = int(number(word, value.substr(0, point), 1));
    next.shape.minor = int(number(word, value.substr(point + 1), 0));
  } else if (key == "driver" && (value == "old" || value == "OLD")) {
    next.shape.driver = 12020;
  } else if (key == "image" && (value == "none" || value == "ptx")) {
    next.shape.image = value == "ptx" ? cudaErrorUnsupportedPtxVersion : cudaErrorNoKernelImageForDevice;
  } else if (key == "driver" && value == "none") {
    next.shape.driver = 0;
  } else if (key == "fail") {
    const size_t colon = value.find(':');
    const std::string_view call = value.substr(0, colon);
    if (colon == std::string_view::npos ||
        (call != "malloc" && call != "host" && call != "memcpy" && call != "launch" && call != "lost")) {
      fail(code::argument, "the emulator's word \"", word,
           "\" names no failure it has, expected fail=malloc:N, host:N, memcpy:N, launch:N or lost:N");
    }
    next.fail[std::string(call)] = number(word, value.substr(colon + 1), 1);
  } else if (key == "order" && value == "fifo") {
    run.order = Order::fifo;
  } else if (key == "order" && value == "lifo") {
    run.order = Order::lifo;
  } else if (key == "order" && value == "random") {
    run.order = Order::random;
  } else if (key == "order" && value == "priority") {
    run.order = Order::priority;
  } else if (key == "seed") {
    run.seed = number(word, value, 0);
  } else if (key == "streams" && (value == "lazy" || value == "eager")) {
    next.lazy = value == "lazy";
  } else {
    fail(code::argument, "the emulator knows no word \"", word,
         "\", expected devices=, memory=, shared=, processors=, capability=, driver=old|none, image=none|ptx, fail=, "
         "order=fifo|lifo|random|priority, seed= or streams=eager|lazy");
  }
}

void configure_locked(std::string_view words) {
  State next;
  Options run = options();
  while (!words.empty()) {
    const size_t comma = words.find(',');
    apply(words.substr(0, comma), next, run);
    words = comma == std::string_view::npos ? "" : words.substr(comma + 1);
  }
  state = next;
  set_options(run);
  set_lazy_streams(next.lazy, run.seed);
  configured = true;
}

void read_environment() {
  if (configured) return;
  const char* words = std::getenv("MINIGPT4_SIMT");
  configure_locked(words ? words : "");
}

cudaError_t missing() {
  if (state.shape.driver < runtime_version) return cudaErrorInsufficientDriver;
  if (state.shape.devices == 0) return cudaErrorNoDevice;
  return state.lost ? cudaErrorDevicesUnavailable : cudaSuccess;
}

}  // namespace

void configure(std::string_view words) {
  const std::lock_guard held(lock);
  configure_locked(words);
}

DeviceShape device_shape() {
  const std::lock_guard held(lock);
  read_environment();
  return state.shape;
}

cudaError_t device_error() {
  const std::lock_guard held(lock);
  read_environment();
  return missing();
}

cudaError_t next_call(Call call) {
  const std::lock_guard held(lock);
  read_environment();
  const auto asked = [](const char* word, uint64_t count) {
    const auto found = state.fail.find(word);
    return found != state.fail.end() && found->second == count;
  };
  if (asked("lost", ++state.all_calls)) state.lost = true;
  if (const cudaError_t error = missing(); error != cudaSuccess) return error;
  const uint64_t count = ++state.calls[call];
  switch (call) {
    case Call::allocate:
      return asked("malloc", count) ? cudaErrorMemoryAllocation : cudaSuccess;
    case Call::allocate_host:
      return asked("host", count) ? cudaErrorMemoryAllocation : cudaSuccess;
    case Call::copy:
      return asked("memcpy", count) ? cudaErrorUnknown : cudaSuccess;
    case Call::launch:
      return asked("launch", count) ? cudaErrorLaunchFailure : cudaSuccess;
    case Call::synchronise:
      break;
  }
  return cudaSuccess;
}

}  // namespace minigpt4::simt
