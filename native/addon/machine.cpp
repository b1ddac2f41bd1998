// What the machine can do at most, and files out of the system's cache: for measurements.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "addon/classes.h"
#include "addon/task.h"
#include "addon/values.h"
#include "ops/ops.h"

namespace minigpt4::addon {
namespace {

constexpr int64_t kMostBytes = int64_t(1) << 40;
constexpr int64_t kMostPasses = 1000;

Napi::Object from_rate(Napi::Env env, const PeakRate& rate) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("median", rate.median);
  object.Set("best", rate.best);
  return object;
}

Napi::Object from_rates(Napi::Env env, const MachineRates& rates) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("level", rates.level);
  object.Set("threads", rates.threads);
  object.Set("read", from_rate(env, rates.read));
  object.Set("fma", from_rate(env, rates.fma));
  if (rates.dot) object.Set("dot", from_rate(env, *rates.dot));
  if (rates.tile_int8) object.Set("tileInt8", from_rate(env, *rates.tile_int8));
  if (rates.tile_bf16) object.Set("tileBf16", from_rate(env, *rates.tile_bf16));
  if (rates.waited_share >= 0) object.Set("waitedShare", rates.waited_share);
  return object;
}

Napi::Value measure_of(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Object given = to_object(info[0], "options");
    CpuOptions options;
    if (has(given, "threads")) options.threads = int(to_integer(given.Get("threads"), "threads", 1, 1024));
    if (has(given, "level")) options.level = to_string(given.Get("level"), "level");
    const auto bytes = size_t(to_integer(given.Get("bytes"), "bytes", 1, kMostBytes));
    const auto passes = int(to_integer(given.Get("passes"), "passes", 1, kMostPasses));
    return Task::start(info.Env(), [options, bytes, passes]() -> Finish {
      auto rates = std::make_shared<MachineRates>(measure_machine(options, bytes, passes));
      return [rates](Napi::Env env) -> Napi::Value { return from_rates(env, *rates); };
    });
  });
}

#ifdef POSIX_FADV_DONTNEED

/// A file descriptor that closes itself.
struct Opened {
  int descriptor;
  explicit Opened(const std::string& path) : descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor < 0) fail(code::file_read, path, ": cannot be opened: ", std::strerror(errno));
  }
  ~Opened() { close(descriptor); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
};

bool forget(const std::string& path) {
  const Opened file(path);
  // pages that are not on the disk yet would stay
  if (fsync(file.descriptor) != 0) fail(code::file_read, path, ": cannot be flushed: ", std::strerror(errno));
  return posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0;
}

#else

bool forget(const std::string&) { return false; }

#endif

Napi::Value forget_file(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string path = to_string(info[0], "path");
    return Task::start(info.Env(), [path]() -> Finish {
      const bool forgotten = forget(path);
      return [forgotten](Napi::Env env) -> Napi::Value { return Napi::Boolean::New(env, forgotten); };
    });
  });
}

}  // namespace

void define_machine(Napi::Env env, Napi::Object exports) {
  exports.Set("measureMachine", Napi::Function::New(env, measure_of, "measureMachine"));
  exports.Set("forgetFile", Napi::Function::New(env, forget_file, "forgetFile"));
}

}  // namespace minigpt4::addon
