// The launches of one key of Ops::replay, recorded as a CUDA graph.
#pragma once

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

struct Recording {
  cudaGraphExec_t launches = nullptr;  // null: ran once, and not recorded yet
  Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    if (launches && cudaGraphExecDestroy(launches) != cudaSuccess) cudaGetLastError();
  }
};

}  // namespace minigpt4::cuda
