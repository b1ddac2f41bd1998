// Which devices this machine has, and the backend of one of them. Knows no CUDA type, so that any compiler may read it.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace minigpt4::cuda {

/// Devices of this machine, at least 1. Error ERR_NO_BACKEND says what is missing: a driver, a newer one, a device.
int device_count();
/// The backend of device `index`. Errors: those of device_count(), ERR_NO_BACKEND (no such device, or one that this build
/// has no kernels for), ERR_CUDA, ERR_OUT_OF_MEMORY.
std::unique_ptr<Ops> make_device_ops(int index);

}  // namespace minigpt4::cuda
