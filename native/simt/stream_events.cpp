// Events: marks in streams' queues, and what joins a stream to a recording.
#include "simt/faults.h"
#include "simt/streams.h"

using namespace minigpt4::simt;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  if (!event) return remember(cudaErrorInvalidValue);
  const std::lock_guard held(all().lock);
  *event = new CUevent_st{.device = current_device(), .flags = flags};
  all().live_events.insert(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard held(all().lock);
  if (all().live_events.erase(event) == 0) return remember(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (!all().live_events.count(event)) return remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t error = stream_error(stream); error != cudaSuccess) return remember(error);
  if (event->device != current_device()) return remember(cudaErrorInvalidResourceHandle);
  if (is_capturing(stream)) {
    event->capture = stream->capture;
    event->captured_stream = stream;
    return cudaSuccess;
  }
  event->capture = nullptr;
  event->marker = std::make_shared<Marker>();
  if (stream) {
    enqueue(stream, {.marks = event->marker});
  } else {
    drain_blocking(current_device());
    event->marker->done = true;
    event->marker->time = std::chrono::steady_clock::now();
  }
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (!all().live_events.count(event)) return remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t error = stream_error(stream); error != cudaSuccess) return remember(error);
  if (event->capture) {
    // the other stream joins the recording, or comes back to the one it began in
    if (!stream || (stream->capture && stream->capture != event->capture)) {
      event->capture->invalid = true;
      return remember(stream ? cudaErrorStreamCaptureMerge : cudaErrorStreamCaptureImplicit);
    }
    Capture& capture = *event->capture;
    if (!stream->capture) {
      stream->capture = event->capture;
      capture.unjoined.insert(stream);
    }
    if (event->captured_stream != stream) capture.unjoined.erase(event->captured_stream);
    return cudaSuccess;
  }
  if (is_capturing(stream)) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureIsolation);
  }
  if (!event->marker) return cudaSuccess;
  if (stream) {
    enqueue(stream, {.waits_for = event->marker});
  } else {
    while (!event->marker->done && run_one()) {
    }
  }
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const cudaError_t error = next_call(Call::synchronise); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (!all().live_events.count(event)) return remember(cudaErrorInvalidResourceHandle);
  if (event->capture) return remember(cudaErrorCapturedEvent);
  while (event->marker && !event->marker->done && run_one()) {
  }
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const cudaError_t error = device_error(); error != cudaSuccess) return remember(error);
  const std::lock_guard held(all().lock);
  if (!all().live_events.count(event)) return remember(cudaErrorInvalidResourceHandle);
  if (event->capture) return remember(cudaErrorCapturedEvent);
  if (event->marker && !event->marker->done) run_one();
  return !event->marker || event->marker->done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const std::lock_guard held(all().lock);
  if (!milliseconds) return remember(cudaErrorInvalidValue);
  for (cudaEvent_t event : {start, end}) {
    if (!all().live_events.count(event) || (event->flags & cudaEventDisableTiming) || !event->marker) {
      return remember(cudaErrorInvalidResourceHandle);
    }
    if (!event->marker->done) return cudaErrorNotReady;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->marker->time - start->marker->time).count();
  return cudaSuccess;
}
