#include "collective/collective.h"

#include <dlfcn.h>

#include <filesystem>

#include "core/error.h"

namespace minigpt4 {

namespace {

using collective::Failure;
using collective::Plugin;

constexpr const char* kPluginFile = "libminigpt4_gloo.so";

/// The code as a text of static storage: what comes over the C interface is none.
[[noreturn]] void raise(const Failure& failure) {
  const std::string found = failure.code;
  for (const char* known : {code::no_backend, code::out_of_memory, code::argument, code::collective}) {
    if (found == known) throw Error(known, failure.text);
  }
  throw Error(code::internal, failure.text);
}

/// The plug-in stays loaded: threads of its library may outlive a group.
const Plugin* load_plugin(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder) / kPluginFile;
  if (!std::filesystem::exists(path)) {
    fail(code::no_backend, "several processes need Gloo, which was not found where this binary was built (there is no ",
         path.string(),
         "): install it (Debian and Ubuntu: apt install libgloo-dev) and build on this machine with scripts/cmake.mjs");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fail(code::no_backend, path.string(), " could not be loaded: ", dlerror(),
         " (Debian and Ubuntu: apt install libgloo-dev)");
  }
  const auto function = reinterpret_cast<collective::PluginFunction>(dlsym(library, collective::kPluginSymbol));
  if (!function)
    fail(code::no_backend, path.string(), " is no plug-in of this program: it has no ", collective::kPluginSymbol);
  const Plugin* plugin = function();
  if (plugin->version != collective::kPluginVersion) {
    fail(code::no_backend, path.string(), " has version ", plugin->version, ", expected ", collective::kPluginVersion,
         ": build it together with the addon, with scripts/cmake.mjs");
  }
  return plugin;
}

}  // namespace

Collective::Collective(const std::string& folder, const Options& options)
    : size_(options.size), plugin_(load_plugin(folder)) {
  const collective::Settings settings{options.rank, options.size, options.host.c_str(), options.connect_timeout_ms,
                                      options.sum_timeout_ms};
  Failure failure{};
  group_ = plugin_->open(&settings, &failure);
  if (!group_) raise(failure);
}

Collective::~Collective() { plugin_->close(group_); }

std::string Collective::address() const {
  const char* bytes = nullptr;
  size_t size = 0;
  plugin_->address(group_, &bytes, &size);
  return {bytes, size};
}

void Collective::connect(const std::vector<std::string>& addresses) {
  if (addresses.size() != size_t(size_)) {
    fail(code::argument, "expected addresses of ", size_, " processes, found ", addresses.size());
  }
  std::vector<const char*> bytes;
  std::vector<size_t> sizes;
  for (const std::string& address : addresses) {
    bytes.push_back(address.data());
    sizes.push_back(address.size());
  }
  Failure failure{};
  if (!plugin_->connect(group_, bytes.data(), sizes.data(), &failure)) raise(failure);
}

void Collective::sum(std::span<float> values) {
  Failure failure{};
  if (!plugin_->sum_floats(group_, values.data(), values.size(), &failure)) raise(failure);
}

void Collective::sum(std::span<double> values) {
  Failure failure{};
  if (!plugin_->sum_doubles(group_, values.data(), values.size(), &failure)) raise(failure);
}

void Collective::abort() { plugin_->abort(group_); }

}  // namespace minigpt4
