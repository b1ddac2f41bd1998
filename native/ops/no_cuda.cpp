// Stands in where CUDA was not built.
#include "core/error.h"
#include "ops/cuda_backend.h"

namespace minigpt4 {

bool cuda_available() noexcept { return false; }

std::unique_ptr<Ops> make_cuda_ops(int index) {
  fail(code::no_backend, "device cuda:", index,
       " was asked for, but this build has no CUDA plug-in; device \"cpu\" is there");
}

}  // namespace minigpt4
