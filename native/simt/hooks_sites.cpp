#include "simt/hooks_sites.h"

#include <dlfcn.h>
#include <link.h>

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <unordered_map>

namespace minigpt4::simt {
namespace {

struct Place {
  const void* address = nullptr;  // or
  Site site;
  bool known = false;
  SourceLine line;
};

struct Places {
  std::mutex mutex;
  std::vector<Place> all = std::vector<Place>(1);
  std::unordered_map<const void*, uint32_t> by_address;
  std::map<std::pair<const char*, int>, uint32_t> by_line;
};
Places& places() {
  static Places* all = new Places;  // never destroyed: static destructors of kernels' files may still be hooked
  return *all;
}

std::string hex(uintptr_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "0x%zx", size_t(value));
  return text;
}

/// Not the kernel's own line: a function of the emulator or of the C++ library that was inlined into it.
bool of_the_surroundings(const std::string& file) {
  return file.find("native/simt/") != std::string::npos || file.rfind("/usr/", 0) == 0;
}

/// "file:line" or "file:line (discriminator 3)".
SourceLine parse(const std::string& text) {
  const size_t colon = text.rfind(':', text.find(" ("));
  if (colon == std::string::npos) return {text, 0};
  return {text.substr(0, colon), std::atoi(text.c_str() + colon + 1)};
}

/// Fills in the lines of places in one object file, by one run of addr2line.
void look_up(const std::string& object, uintptr_t base, const std::vector<Place*>& of) {
  std::string command = "addr2line -a -i -e '" + object + "'";
  for (const Place* place : of) command += " " + hex(uintptr_t(place->address) - base - 1);  // inside the call
  command += " 2>/dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return;
  // for every address: a line with the address, then the innermost inlined place, its caller, and so on
  size_t at = size_t(-1);
  bool chosen = false;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe)) {
    std::string text(buffer);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text.rfind("0x", 0) == 0) {
      ++at;
      chosen = false;
    } else if (at < of.size() && !chosen && text.rfind("??", 0) != 0) {
      of[at]->line = parse(text);
      chosen = !of_the_surroundings(of[at]->line.file);
    }
  }
  pclose(pipe);
}

void resolve(std::vector<Place*> unknown) {
  std::map<std::pair<std::string, uintptr_t>, std::vector<Place*>> by_object;
  for (Place* place : unknown) {
    place->known = true;
    if (!place->address) {
      place->line = {place->site.file ? place->site.file : "an unknown place", place->site.line};
      continue;
    }
    place->line = {"code at " + hex(uintptr_t(place->address)), 0};
    Dl_info info = {};
    link_map* map = nullptr;
    if (!dladdr1(place->address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) || !map) continue;
    const bool program = !map->l_name || !*map->l_name;
    by_object[{program ? "/proc/" + std::to_string(getpid()) + "/exe" : map->l_name, uintptr_t(map->l_addr)}].push_back(
        place);
  }
  for (const auto& [object, of] : by_object) look_up(object.first, object.second, of);
}

}  // namespace

uint32_t site_number(const void* return_address) {
  // The same few hundred addresses come again and again. One cache is enough: only launches ask, and they exclude each other.
  static struct {
    const void* address;
    uint32_t number;
  } recent[1024];
  auto& slot = recent[(uintptr_t(return_address) ^ uintptr_t(return_address) >> 10) % 1024];
  if (slot.address == return_address) return slot.number;
  Places& known = places();
  const std::lock_guard lock(known.mutex);
  const auto [at, is_new] = known.by_address.try_emplace(return_address, uint32_t(known.all.size()));
  if (is_new) {
    known.all.emplace_back();
    known.all.back().address = return_address;
  }
  slot = {return_address, at->second};
  return at->second;
}

uint32_t site_number(Site site) {
  Places& known = places();
  const std::lock_guard lock(known.mutex);
  const auto [at, is_new] = known.by_line.try_emplace({site.file, site.line}, uint32_t(known.all.size()));
  if (is_new) {
    known.all.emplace_back();
    known.all.back().site = site;
  }
  return at->second;
}

std::vector<SourceLine> source_lines(const std::vector<uint32_t>& sites) {
  Places& known = places();
  const std::lock_guard lock(known.mutex);
  std::vector<Place*> unknown;
  for (const uint32_t site : sites) {
    Place& place = known.all[site];
    if (place.known) continue;
    place.known = true;
    unknown.push_back(&place);
  }
  resolve(unknown);
  std::vector<SourceLine> lines;
  for (const uint32_t site : sites) lines.push_back(known.all[site].line);
  return lines;
}

}  // namespace minigpt4::simt
