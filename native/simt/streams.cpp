// Streams: their queues, and when what lies in them runs.
#include "simt/streams.h"

#include "simt/faults.h"

namespace minigpt4::simt {

namespace {

bool can_run(const CUstream_st& stream) {
  return !stream.queue.empty() && (!stream.queue.front().waits_for || stream.queue.front().waits_for->done);
}

void run_front(CUstream_st& stream) {
  Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (work.marks) {
    work.marks->done = true;
    work.marks->time = std::chrono::steady_clock::now();
  } else if (work.run && stream.failed == cudaSuccess) {
    stream.failed = work.run();
  }
}

cudaError_t taken_error(CUstream_st& stream) {
  const cudaError_t error = stream.failed;
  stream.failed = cudaSuccess;
  return error;
}

}  // namespace

Streams& all() {
  static Streams* made = new Streams;  // never destroyed: other threads may still use streams at the process's end
  return *made;
}

const void* this_thread() {
  static thread_local const char mark = 0;
  return &mark;
}

bool run_one() {
  std::vector<CUstream_st*> able;
  for (cudaStream_t stream : all().live) {
    if (can_run(*stream)) able.push_back(stream);
  }
  if (able.empty()) return false;
  run_front(*able[all().random.below(uint32_t(able.size()))]);
  return true;
}

void drain_blocking(int device) {
  for (cudaStream_t stream : all().live) {
    if (stream->device != device || (stream->flags & cudaStreamNonBlocking)) continue;
    while (!stream->queue.empty() && run_one()) {
    }
  }
}

void enqueue(cudaStream_t stream, Work work) {
  stream->queue.push_back(std::move(work));
  if (all().lazy) return;
  while (can_run(*stream)) run_front(*stream);
}

std::recursive_mutex& device_lock() { return all().lock; }

void set_lazy_streams(bool lazy, uint64_t seed) {
  const std::lock_guard held(all().lock);
  all().lazy = lazy;
  all().random.restart(seed);
}

bool is_capturing(cudaStream_t stream) { return stream && stream->capture; }

cudaError_t stream_error(cudaStream_t stream) {
  if (!stream) return cudaSuccess;
  if (!all().live.count(stream) || stream->device != current_device()) return cudaErrorInvalidResourceHandle;
  return cudaSuccess;
}

cudaError_t forbidden_in_capture() {
  const std::lock_guard held(all().lock);
  cudaError_t error = cudaSuccess;
  for (const auto& capture : all().captures) {
    if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread != this_thread()) continue;
    capture->invalid = true;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work) {
  const std::lock_guard held(all().lock);
  if (!stream) {
    // the default stream waits for all blocking ones, and they for it
    for (const auto& capture : all().captures) {
      if (!(capture->origin->flags & cudaStreamNonBlocking) && capture->origin->device == current_device()) {
        capture->invalid = true;
        return cudaErrorStreamCaptureImplicit;
      }
    }
    drain_blocking(current_device());
    return work();
  }
  if (const cudaError_t error = stream_error(stream); error != cudaSuccess) return error;
  if (stream->capture) {
    Capture& capture = *stream->capture;
    if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
    capture.nodes.push_back(std::move(work));
    if (stream != capture.origin) capture.unjoined.insert(stream);
    return cudaSuccess;
  }
  enqueue(stream, {.run = std::move(work)});
  // run at once, a failure is the call's own, as that of a launch that could not be made
  return all().lazy ? cudaSuccess : taken_error(*stream);
}

cudaError_t drain(cudaStream_t stream) {
  const std::lock_guard held(all().lock);
  if (!stream) {
    drain_blocking(current_device());
    return cudaSuccess;
  }
  while (!stream->queue.empty() && run_one()) {
  }
  return taken_error(*stream);
}

cudaError_t drain_device(int device) {
  const std::lock_guard held(all().lock);
  cudaError_t first = cudaSuccess;
  for (cudaStream_t stream : all().live) {
    if (stream->device != device) continue;
    const cudaError_t error = drain(stream);
    if (first == cudaSuccess) first = error;
  }
  return first;
}

}  // namespace minigpt4::simt

using namespace minigpt4::simt;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (!stream || flags > cudaStreamNonBlocking) return remember(cudaErrorInvalidValue);
  const std::lock_guard held(all().lock);
  *stream = new CUstream_st{.device = current_device(), .flags = flags};
  all().live.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard held(all().lock);
  if (!all().live.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->invalid = true;
    if (stream->capture->origin == stream) all().captures.erase(stream->capture);
  }
  drain(stream);
  all().live.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const cudaError_t error = next_call(Call::synchronise); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (stream && !all().live.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (is_capturing(stream)) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  return remember(drain(stream));
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (stream && !all().live.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (is_capturing(stream)) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  if (!stream) return remember(drain(stream));
  if (!stream->queue.empty()) run_one();  // time passes
  return stream->queue.empty() ? remember(taken_error(*stream)) : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t error = next_call(Call::synchronise); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (!all().captures.empty()) {
    for (const auto& capture : all().captures) capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  return remember(drain_device(current_device()));
}
