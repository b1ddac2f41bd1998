// Pinned host memory between the host's and the device's: two pieces in turn, so that the host fills (or empties) one while
// the device reads (or writes) the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/gpu.h"

namespace minigpt4::cuda {

class Staging {
 public:
  /// What a piece holds: large enough that the bus is busy, small enough not to be missed. Pinned when first used.
  static constexpr size_t kPiece = size_t(4) << 20;

  explicit Staging(cudaStream_t stream) : stream_(stream) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// A piece of at least `bytes` that the device is done with; valid until send(). Errors: ERR_OUT_OF_MEMORY, ERR_CUDA.
  uint8_t* next(size_t bytes);
  /// The first `bytes` of what next() gave go to the device, in the stream's order; does not wait.
  void send(void* to, size_t bytes);

  /// Both return when the host's memory is free to use; download() waits for the stream.
  void upload(void* to, const void* from_host, size_t bytes);
  void download(void* to_host, const void* from, size_t bytes);

 private:
  struct Piece {
    uint8_t* data = nullptr;
    size_t bytes = 0;
    cudaEvent_t done = nullptr;  // recorded behind the last copy that used the piece
    bool busy = false;
  };
  void wait(Piece& piece);
  void record(Piece& piece);

  cudaStream_t stream_;
  Piece pieces_[2];
  int turn_ = 0;  // the piece that next() gives
};

}  // namespace minigpt4::cuda
