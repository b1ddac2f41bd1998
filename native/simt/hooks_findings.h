// What the checker found during a launch: gathered while the kernel runs, told when it ends, because looking up source
// lines starts a program and must not happen on a kernel thread's small stack.
#pragma once

#include <cstdint>
#include <string>

#include "simt/context.h"
#include "simt/report.h"

namespace minigpt4::simt {

/// Notes a finding of thread `by` at a site. `other_site` (0: none) is appended to `words` as file:line, and `rest` after it.
void note_finding(FindingKind kind, const Context& by, uint32_t site, const std::string& words, uint32_t other_site = 0,
                  const std::string& rest = "");

/// True where this pair was noted before in this launch: spares making the words. Counts it once more.
bool noted_before(FindingKind kind, uint32_t site, uint32_t other_site = 0);

/// Hands all that was noted to add_finding().
void tell_findings();

}  // namespace minigpt4::simt
