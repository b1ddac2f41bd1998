// Places in a kernel's source, as small numbers while a kernel runs and as file:line in reports. A place is either a
// return address of a compiler's hook, looked up with addr2line when a report asks, or a file and line known at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "simt/context.h"

namespace minigpt4::simt {

struct SourceLine {
  std::string file;  // the address in the program where no debug information is
  int line = 0;
};
inline bool operator<(const SourceLine& a, const SourceLine& b) {
  return a.file != b.file ? a.file < b.file : a.line < b.line;
}

/// Numbers from 1, the same for the same place over the whole run. During a launch alone, of which there is one at a time.
uint32_t site_number(const void* return_address);
uint32_t site_number(Site site);

/// The lines of these numbers, in their order; one run of addr2line for all that are not known yet. A function of
/// simt/ or of the C++ library that was inlined stands for the line that calls it.
std::vector<SourceLine> source_lines(const std::vector<uint32_t>& sites);

}  // namespace minigpt4::simt
