// Streams recorded as graphs, and graphs run: a node is a closure with the arguments of the call copied.
#include "simt/faults.h"
#include "simt/streams.h"

using namespace minigpt4::simt;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (!stream) return remember(cudaErrorStreamCaptureUnsupported);
  if (!all().live.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (stream->capture) return remember(cudaErrorInvalidValue);
  stream->capture = std::make_shared<Capture>(Capture{.origin = stream, .mode = mode, .thread = this_thread()});
  all().captures.insert(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const std::lock_guard held(all().lock);
  if (!status) return remember(cudaErrorInvalidValue);
  *status = !is_capturing(stream)      ? cudaStreamCaptureStatusNone
            : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

struct CUgraph_st {
  std::vector<std::function<cudaError_t()>> nodes;
};
struct CUgraphExec_st {
  std::vector<std::function<cudaError_t()>> nodes;
  int device;
};

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard held(all().lock);
  if (graph) *graph = nullptr;
  if (!stream || !all().live.count(stream) || !graph) return remember(cudaErrorInvalidValue);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return remember(cudaErrorInvalidValue);
  if (capture->origin != stream) {
    capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnmatched);
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != this_thread()) {
    return remember(cudaErrorStreamCaptureWrongThread);
  }
  const bool unjoined = !capture->unjoined.empty();
  for (cudaStream_t other : all().live) {
    if (other->capture == capture) other->capture = nullptr;
  }
  all().captures.erase(capture);
  if (capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
  if (unjoined) return remember(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(capture->nodes)};
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  if (!graph || !count) return remember(cudaErrorInvalidValue);
  if (nodes) return remember(cudaErrorNotSupported);
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (!executable || !graph) return remember(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{graph->nodes, current_device()};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (!executable) return remember(cudaErrorInvalidValue);
  const std::lock_guard held(all().lock);
  if (is_capturing(stream)) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  if (executable->device != current_device()) return remember(cudaErrorInvalidResourceHandle);
  return remember(submit(stream, [nodes = executable->nodes] {
    for (const auto& node : nodes) {
      if (const cudaError_t error = node(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  if (!graph) return remember(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  if (!executable) return remember(cudaErrorInvalidValue);
  delete executable;
  return cudaSuccess;
}
