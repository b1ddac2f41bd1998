// Backends that lie beside this binary as plug-ins: "cuda", and the CPU's emulation of it ("simt"), which tests use.
#pragma once

#include <memory>
#include <string>

#include "ops/ops.h"

namespace minigpt4 {

/// True if the plug-in's file is there.
bool has_plugin(const std::string& kind);
/// The backend of device `index` of the plug-in. Plug-ins are looked for in the folder that MINIGPT4_PLUGINS names, if it is
/// set, then beside this binary, and stay loaded. Errors: ERR_NO_BACKEND says what is missing (the plug-in, one of this
/// build, a driver, a newer one, a device, that device), ERR_OUT_OF_MEMORY, ERR_CUDA.
std::unique_ptr<Ops> make_plugin_ops(const std::string& kind, int index);

}  // namespace minigpt4
