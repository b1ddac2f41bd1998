#include "core/binary_folder.h"

#include <dlfcn.h>

#include <filesystem>

#include "core/error.h"

namespace minigpt4 {

std::string binary_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&binary_folder), &info) == 0 || !info.dli_fname) {
    fail(code::internal, "the folder of the native binary is not known to the system's loader");
  }
  return std::filesystem::absolute(info.dli_fname).parent_path().string();
}

}  // namespace minigpt4
