#include "ops/cuda_plugin.h"

#include <dlfcn.h>
#ifdef __linux__
#include <elf.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "core/binary_folder.h"
#include "core/error.h"
#include "ops/plugin_ops.h"

namespace minigpt4 {

namespace {

/// Where the plug-in may lie, the first place first.
std::vector<std::filesystem::path> plugin_places(const std::string& kind) {
  const std::string file = "libminigpt4_" + kind + ".so";
  std::vector<std::filesystem::path> places;
  if (const char* folder = std::getenv("MINIGPT4_PLUGINS"); folder && *folder) {
    places.push_back(std::filesystem::absolute(folder) / file);
  }
  places.push_back(std::filesystem::path(binary_folder()) / file);
  return places;
}

std::optional<std::filesystem::path> plugin_path(const std::string& kind) {
  std::error_code ignored;  // what cannot be looked at is not there
  for (const std::filesystem::path& place : plugin_places(kind)) {
    if (std::filesystem::exists(place, ignored)) return place;
  }
  return std::nullopt;
}

/// Error where a segment of the file ends behind the file, as after a broken download: it can be mapped, and to touch what
/// is missing ends the process. What is no such file at all is for dlopen to tell.
void check_whole(const std::filesystem::path& path) {
#if defined(__linux__) && defined(__LP64__)
  std::ifstream file(path, std::ios::binary);
  Elf64_Ehdr head;
  if (!file.read(reinterpret_cast<char*>(&head), sizeof head)) return;
  if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64) return;
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  uint64_t needed = error ? 0 : head.e_phoff + uint64_t(head.e_phnum) * head.e_phentsize;
  for (int i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr segment;
    file.seekg(std::streamoff(head.e_phoff + uint64_t(i) * head.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) break;
    if (segment.p_type == PT_LOAD) needed = std::max<uint64_t>(needed, segment.p_offset + segment.p_filesz);
  }
  if (size < needed) {
    fail(code::no_backend, path.string(), " is cut off: expected ", needed, " bytes at least, found ", size,
         "; install or build it anew");
  }
#endif
}

/// The plug-in is never unloaded: its weights and its driver's threads may outlive a backend.
const plugin::Table& load(const std::string& kind) {
  const std::optional<std::filesystem::path> found = plugin_path(kind);
  if (!found) {
    std::string places;
    for (const auto& place : plugin_places(kind)) places += (places.empty() ? "" : " and no ") + place.string();
    fail(code::no_backend, "device \"", kind, "\" needs the ", kind, " plug-in, which was not built with this binary",
         " (there is no ", places, "): install the CUDA toolkit (nvcc) and build on this machine with",
         " scripts/cmake.mjs; device \"cpu\" is there");
  }
  const std::filesystem::path& path = *found;
  check_whole(path);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(code::no_backend, path.string(), " could not be loaded: ", dlerror());
  const auto function = reinterpret_cast<plugin::Function>(dlsym(library, plugin::kSymbol));
  if (!function) fail(code::no_backend, path.string(), " is no plug-in of this program: it has no ", plugin::kSymbol);
  const plugin::Table* table = function();
  if (!table || !table->interface) {
    fail(code::no_backend, path.string(), " is no plug-in of this program: its ", plugin::kSymbol, " has no table");
  }
  if (std::strcmp(table->interface, plugin::kInterface) != 0) {
    fail(code::no_backend, path.string(), " was built apart from this binary (it is \"", table->interface,
         "\", expected \"", plugin::kInterface, "\"): build both together with scripts/cmake.mjs");
  }
  return *table;
}

}  // namespace

bool has_plugin(const std::string& kind) { return plugin_path(kind).has_value(); }

std::unique_ptr<Ops> make_plugin_ops(const std::string& kind, int index) {
  return std::make_unique<PluginOps>(load(kind), index, kind + ":" + std::to_string(index));
}

}  // namespace minigpt4
