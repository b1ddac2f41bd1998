// The device itself: choosing it, its memory, its stream, copies, and the scratch that ops share.
#include "ops/cuda/cuda_ops.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "core/thread_pool.h"
#include "ops/cuda/devices.h"
#include "ops/cuda/recording.h"
#include "ops/cuda/staging.h"

namespace minigpt4::cuda {

namespace {

constexpr uint32_t kProbe = 0x6d676834;
/// One block of one thread shows that this build has kernels for the device, that they run, and whether they wait for the
/// launch before where they are to: the code that runs decides, not the device.
__global__ void __launch_bounds__(1) probe(uint32_t* to) {
  to[0] = kProbe;
  to[1] = gpu::can_wait_for_previous();
}

/// Launches that overlap are recorded as such since CUDA 12.3.
bool records_overlap() {
  constexpr int needed = 12030;
  int runtime = 0, driver = 0;
  check(cudaRuntimeGetVersion(&runtime), "asking for the runtime's version");
  check(cudaDriverGetVersion(&driver), "asking for the driver's version");
  return std::min(runtime, driver) >= needed;
}

/// Off: to measure what it brings, and to see whether it is what went wrong.
bool overlap_wanted() {
  const char* word = std::getenv("MINIGPT4_CUDA_OVERLAP");
  const std::string wanted = word && *word ? word : "on";
  if (wanted == "on" || wanted == "off") return wanted == "on";
  fail(code::argument, "MINIGPT4_CUDA_OVERLAP is on or off, found \"", wanted, "\"");
}

/// "80.0 GB", of 10^9 bytes.
std::string gigabytes(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GB", double(bytes) * 1e-9);
  return text;
}

}  // namespace

void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what can be forgotten is not the next call's error
  if (status == cudaErrorMemoryAllocation) {
    fail(code::out_of_memory, doing, ": the device or the driver has too little memory left");
  }
  // what cannot be recorded leaves the device as it was; anything else may have left a step half done
  const bool recording = status >= cudaErrorStreamCaptureUnsupported && status <= cudaErrorStreamCaptureWrongThread;
  fail(code::cuda, doing, " failed: ", cudaGetErrorName(status), " (", cudaGetErrorString(status), ")",
       recording ? "" : "; the model must be loaded again, in a new process where the device does not recover");
}

CudaOps::CudaOps(int index) : index_(index) {
  const int count = device_count();
  if (index < 0 || index >= count) {
    fail(code::no_backend, "device number ", index, " was asked for, but this machine has ", count,
         count == 1 ? std::string(" CUDA device, number 0")
                    : " CUDA devices, numbers 0 to " + std::to_string(count - 1));
  }
  cudaDeviceProp about{};
  check(cudaGetDeviceProperties(&about, index), "asking for the device's properties");
  multiprocessors_ = about.multiProcessorCount;
  name_ = std::string(about.name) + ", " + gigabytes(about.totalGlobalMem);
  choose();
  memory_ = std::make_shared<DeviceMemory>(index);
  check(cudaStreamCreateWithFlags(&stream_.handle, cudaStreamNonBlocking), "making a stream");
  staging_ = std::make_unique<Staging>(stream_);

  const std::shared_ptr<void> word(memory_->take(2 * sizeof kProbe, "device check"),
                                   [&](void* p) { memory_->give(p); });
  const cudaError_t status =
      gpu::launch(probe, gpu::Launch{dim3(1), dim3(1), 0, stream_.handle}, static_cast<uint32_t*>(word.get()));
  if (status == cudaErrorUnsupportedPtxVersion) {
    cudaGetLastError();
    fail(code::no_backend, "device number ", index, " (", about.name,
         ") has a driver that is older than the CUDA toolkit",
         " of this build, which has no kernels for compute capability ", about.major, ".", about.minor,
         " but those that a newer driver compiles: it needs that driver, or a build on this machine");
  }
  if (status == cudaErrorNoKernelImageForDevice || about.major < 8) {
    cudaGetLastError();
    fail(code::no_backend, "device number ", index, " (", about.name, ") has compute capability ", about.major, ".",
         about.minor, ", for which this build has no kernels",
         about.major < 8 ? ": 8.0 is the oldest that there are any for" : "; a build on this machine would have them");
  }
  check(status, "a first launch");
  uint32_t found[2] = {};
  download(found, word.get(), sizeof found);
  if (found[0] != kProbe)
    fail(code::cuda, "device number ", index, " (", about.name, ") ran a kernel that wrote nothing");
  // false: every launch begins when the one before has ended
  overlaps_ = overlap_wanted() && found[1] != 0 && records_overlap();
}

CudaOps::~CudaOps() {
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_);
  recordings_.clear();
  for (const Piece& piece : scratch_) memory_->give(piece.data);
  cudaGetLastError();  // a lost device has nothing more to say
}

void CudaOps::choose() const { check(cudaSetDevice(index_), "choosing the device"); }

void CudaOps::not_in_recording(const char* doing) const {
  if (recording_) fail(code::internal, doing, " within a recording of launches, which has room for ops alone");
}

std::string CudaOps::describe() const { return name_; }

void* CudaOps::allocate(size_t bytes, const char* owner) {
  not_in_recording("taking memory");
  return memory_->take(bytes, owner);
}

void CudaOps::release(void* memory) noexcept {
  if (!memory) return;
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_);  // launches may still use it
  cudaGetLastError();
  memory_->give(memory);
}

void CudaOps::upload(void* to, const void* from_host, size_t bytes) {
  not_in_recording("an upload");
  choose();
  staging_->upload(to, from_host, bytes);
}

void CudaOps::download(void* to_host, const void* from, size_t bytes) {
  not_in_recording("a download");
  choose();
  staging_->download(to_host, from, bytes);
}

void CudaOps::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  choose();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copying on the device");
}

std::vector<Holding> CudaOps::holdings() const { return memory_->holdings(); }

size_t CudaOps::room() const {
  choose();
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for the device's free memory");
  return free;
}

size_t CudaOps::taken(size_t bytes) const {
  // the driver maps pages of 2 MiB; pieces of less than half of one share them
  constexpr size_t unit = size_t(2) << 20;
  return bytes < unit / 2 ? bytes : (bytes + unit - 1) / unit * unit;
}

void* CudaOps::scratch(Scratch kind, size_t bytes) {
  Piece& piece = scratch_[size_t(kind)];
  if (bytes <= piece.bytes && piece.data) return piece.data;
  if (recording_) {
    fail(code::internal, "an op of a recording needs ", bytes, " bytes of scratch, but its first run left ",
         piece.bytes);
  }
  choose();
  check(cudaStreamSynchronize(stream_), "waiting for the device");
  recordings_.clear();  // they hold the old address
  memory_->give(piece.data);
  const size_t before = piece.bytes;
  piece = {};
  // by half at least, so that batches that grow row by row do not drop the records with every row
  constexpr size_t unit = size_t(1) << 16;
  const size_t size = (std::max(bytes, before + before / 2) + unit - 1) / unit * unit;
  piece.data = memory_->take(size, "workspace");
  piece.bytes = size;
  return piece.data;
}

}  // namespace minigpt4::cuda
