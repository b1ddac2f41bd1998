#include "ops/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "ops/cuda/cuda_ops.h"

namespace minigpt4::cuda {

Staging::~Staging() {
  cudaStreamSynchronize(stream_);
  for (Piece& piece : pieces_) {
    if (piece.done) cudaEventDestroy(piece.done);
    if (piece.data) cudaFreeHost(piece.data);
  }
  cudaGetLastError();
}

void Staging::wait(Piece& piece) {
  if (!piece.busy) return;
  piece.busy = false;
  check(cudaEventSynchronize(piece.done), "waiting for a copy");
}

void Staging::record(Piece& piece) {
  check(cudaEventRecord(piece.done, stream_), "copying");
  piece.busy = true;
}

uint8_t* Staging::next(size_t bytes) {
  Piece& piece = pieces_[turn_];
  wait(piece);
  if (!piece.done) check(cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming), "making an event");
  if (piece.bytes >= bytes) return piece.data;
  const size_t size = std::max(bytes, kPiece);
  if (piece.data) check(cudaFreeHost(piece.data), "giving back pinned memory");
  piece.data = nullptr;
  piece.bytes = 0;
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, size);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(code::out_of_memory, "copies to the device need ", size, " bytes of pinned host memory, and the system does",
         " not give them");
  }
  check(status, "taking pinned memory");
  piece.data = static_cast<uint8_t*>(memory);
  piece.bytes = size;
  return piece.data;
}

void Staging::send(void* to, size_t bytes) {
  Piece& piece = pieces_[turn_];
  check(cudaMemcpyAsync(to, piece.data, bytes, cudaMemcpyHostToDevice, stream_), "copying to the device");
  record(piece);
  turn_ = 1 - turn_;
}

void Staging::upload(void* to, const void* from_host, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t count = std::min(kPiece, bytes - at);
    std::memcpy(next(count), static_cast<const char*>(from_host) + at, count);
    send(static_cast<char*>(to) + at, count);
  }
}

void Staging::download(void* to_host, const void* from, size_t bytes) {
  struct Part {
    Piece* piece = nullptr;
    size_t at = 0, count = 0;
  } before;  // under way while the next one is asked for
  const auto empty = [&](const Part& part) {
    if (!part.piece) return;
    wait(*part.piece);
    std::memcpy(static_cast<char*>(to_host) + part.at, part.piece->data, part.count);
  };
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t count = std::min(kPiece, bytes - at);
    uint8_t* data = next(count);
    Piece& piece = pieces_[turn_];
    check(cudaMemcpyAsync(data, static_cast<const char*>(from) + at, count, cudaMemcpyDeviceToHost, stream_),
          "copying from the device");
    record(piece);
    turn_ = 1 - turn_;
    empty(before);
    before = {&piece, at, count};
  }
  empty(before);
}

}  // namespace minigpt4::cuda
