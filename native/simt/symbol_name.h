// The name of a function in this process, for reports.
#pragma once

#include <string>

namespace minigpt4::simt {

/// Demangled, without parameters; empty where the file it comes from has no symbols.
std::string symbol_name(const void* function);

}  // namespace minigpt4::simt
