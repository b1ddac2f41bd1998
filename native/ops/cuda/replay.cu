// Ops::replay by stream capture. The first call of a key runs as it is, and so loads the kernels and sizes the scratch; the
// second one is recorded, and launched as a whole; later ones launch the record.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/recording.h"

namespace minigpt4::cuda {

namespace {

/// A stream that records instead of running, until end(); an exception on the way leaves it running again.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    // this thread alone: another model's thread may take memory meanwhile
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning to record launches");
  }
  ~Capture() {
    if (ended_) return;
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
    cudaGetLastError();  // that what was recorded is of no use is known
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraph_t end() {
    ended_ = true;
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_, &graph), "recording launches");
    return graph;
  }

 private:
  cudaStream_t stream_;
  bool ended_ = false;
};

}  // namespace

void CudaOps::replay(uint64_t key, const std::function<void()>& body) {
  not_in_recording("a replay");
  choose();
  const auto found = recordings_.find(key);
  if (found == recordings_.end()) {
    body();
    recordings_.emplace(key, std::make_unique<Recording>());
    return;
  }
  Recording& recording = *found->second;
  if (!recording.launches) record(recording, body);
  check(cudaGraphLaunch(recording.launches, stream_), "launching a recorded step");
}

void CudaOps::record(Recording& recording, const std::function<void()>& body) {
  struct Flag {
    bool& set;
    explicit Flag(bool& flag) : set(flag) { set = true; }
    ~Flag() { set = false; }
  };
  cudaGraph_t graph = nullptr;
  {
    Capture capture(stream_);
    const Flag flag(recording_);
    body();
    graph = capture.end();
  }
  const cudaError_t status = cudaGraphInstantiate(&recording.launches, graph, 0);
  cudaGraphDestroy(graph);
  if (status != cudaSuccess) recording.launches = nullptr;
  check(status, "making a recorded step ready");
}

}  // namespace minigpt4::cuda
