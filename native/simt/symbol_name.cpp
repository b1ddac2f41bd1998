#include "simt/symbol_name.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace minigpt4::simt {

namespace {

/// From the file's own symbol table, which has the local functions too that dladdr does not know.
std::string name_in_file(const char* path, uintptr_t offset) {
  std::string found;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return found;
  struct stat status;
  if (fstat(file, &status) == 0 && size_t(status.st_size) >= sizeof(ElfW(Ehdr))) {
    const size_t bytes = size_t(status.st_size);
    void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped != MAP_FAILED) {
      const char* begin = static_cast<const char*>(mapped);
      const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(begin);
      const auto inside = [&](uint64_t at, uint64_t size) { return at <= bytes && size <= bytes - at; };
      if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
          inside(header->e_shoff, uint64_t(header->e_shnum) * sizeof(ElfW(Shdr)))) {
        const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(begin + header->e_shoff);
        for (int s = 0; s < header->e_shnum && found.empty(); ++s) {
          const ElfW(Shdr)& table = sections[s];
          if (table.sh_type != SHT_SYMTAB || table.sh_link >= header->e_shnum) continue;
          const ElfW(Shdr)& names = sections[table.sh_link];
          if (!inside(table.sh_offset, table.sh_size) || !inside(names.sh_offset, names.sh_size)) continue;
          const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(begin + table.sh_offset);
          for (size_t i = 0; i < table.sh_size / sizeof(ElfW(Sym)); ++i) {
            if ((symbols[i].st_info & 0xf) == STT_FUNC && symbols[i].st_value == offset &&
                symbols[i].st_name < names.sh_size) {
              const char* text = begin + names.sh_offset + symbols[i].st_name;
              found.assign(text, strnlen(text, names.sh_size - symbols[i].st_name));
              break;
            }
          }
        }
      }
      munmap(mapped, bytes);
    }
  }
  close(file);
  return found;
}

}  // namespace

std::string symbol_name(const void* function) {
  Dl_info info;
  link_map* map = nullptr;
  if (dladdr1(function, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) return {};
  std::string mangled;
  if (info.dli_sname && info.dli_saddr == function) {
    mangled = info.dli_sname;
  } else if (map) {
    const char* path = map->l_name && *map->l_name ? map->l_name : "/proc/self/exe";
    mangled = name_in_file(path, reinterpret_cast<uintptr_t>(function) - map->l_addr);
  }
  if (mangled.empty()) return {};
  int status = 0;
  char* plain = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 && plain ? plain : mangled;
  std::free(plain);
  // templates' names begin with the return type, and all end with the parameters
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0 && name.compare(i, 21, "(anonymous namespace)") != 0) {
      name.resize(i);
      break;
    }
  }
  if (name.rfind("void ", 0) == 0) name.erase(0, 5);
  return name;
}

}  // namespace minigpt4::simt
