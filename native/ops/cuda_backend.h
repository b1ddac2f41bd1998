// What a build with the CUDA plug-in has and one without lacks; no_cuda.cpp stands in.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace minigpt4 {

/// True if a CUDA device can be asked for; "auto" takes it then.
bool cuda_available() noexcept;
/// The backend of CUDA device `index`. Error ERR_NO_BACKEND says what is missing.
std::unique_ptr<Ops> make_cuda_ops(int index);

}  // namespace minigpt4
