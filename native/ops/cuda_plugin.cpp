#include "ops/cuda_plugin.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/binary_folder.h"
#include "core/error.h"
#include "ops/plugin_ops.h"

namespace minigpt4 {

namespace {

/// Where the plug-in lies; beside this binary if nowhere.
std::filesystem::path plugin_path(const std::string& kind) {
  const std::string file = "libminigpt4_" + kind + ".so";
  if (const char* folder = std::getenv("MINIGPT4_PLUGINS"); folder && *folder) {
    const std::filesystem::path path = std::filesystem::absolute(folder) / file;
    if (std::filesystem::exists(path)) return path;
  }
  return std::filesystem::path(binary_folder()) / file;
}

/// The plug-in is never unloaded: its weights and its driver's threads may outlive a backend.
const plugin::Table& load(const std::string& kind) {
  const std::filesystem::path path = plugin_path(kind);
  if (!std::filesystem::exists(path)) {
    fail(code::no_backend, "device \"", kind, "\" needs the ", kind, " plug-in, which was not built with this binary",
         " (there is no ", path.string(), "): install the CUDA toolkit (nvcc) and build on this machine with",
         " scripts/cmake.mjs; device \"cpu\" is there");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(code::no_backend, path.string(), " could not be loaded: ", dlerror());
  const auto function = reinterpret_cast<plugin::Function>(dlsym(library, plugin::kSymbol));
  if (!function) fail(code::no_backend, path.string(), " is no plug-in of this program: it has no ", plugin::kSymbol);
  const plugin::Table* table = function();
  if (std::strcmp(table->interface, plugin::kInterface) != 0) {
    fail(code::no_backend, path.string(), " was built apart from this binary (it is \"", table->interface,
         "\", expected \"", plugin::kInterface, "\"): build both together with scripts/cmake.mjs");
  }
  return *table;
}

}  // namespace

bool has_plugin(const std::string& kind) { return std::filesystem::exists(plugin_path(kind)); }

std::unique_ptr<Ops> make_plugin_ops(const std::string& kind, int index) {
  return std::make_unique<PluginOps>(load(kind), index, kind + ":" + std::to_string(index));
}

}  // namespace minigpt4
