// The emulated streams: queues of work that run at once, or (streams=lazy) as late as a device may run them, in random
// turns. And the recording of their work as graphs.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "simt/runtime.h"
#include "simt/schedule.h"

namespace minigpt4::simt {

/// One recording of an event: done when its stream has come to it.
struct Marker {
  bool done = false;
  std::chrono::steady_clock::time_point time;
};

struct Work {
  std::function<cudaError_t()> run = {};   // or
  std::shared_ptr<Marker> waits_for = {};  // or
  std::shared_ptr<Marker> marks = {};
};

/// A graph that streams are being recorded into.
struct Capture {
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  const void* thread = nullptr;  // of the host; the address of a thread's own variable names it
  bool invalid = false;
  std::vector<std::function<cudaError_t()>> nodes = {};
  std::set<cudaStream_t> unjoined = {};  // that took part and that the origin has not waited for since
};

struct Streams {
  std::recursive_mutex lock;
  std::set<cudaStream_t> live;
  std::set<cudaEvent_t> live_events;
  std::set<std::shared_ptr<Capture>> captures;  // begun and not ended
  bool lazy = false;
  Random random;
};
/// Those of the process. Use it under its lock.
Streams& all();
/// Guards streams, events and graphs, and lets one kernel run at a time.
std::recursive_mutex& device_lock();

/// Puts work into the stream's queue (or into the graph it is recorded into) and runs what must run now.
cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work);
void enqueue(cudaStream_t stream, Work work);
/// Runs one piece of work of any stream, chosen at random. False when nothing can run.
bool run_one();
/// Runs all that the device's blocking streams hold: what the default stream waits for.
void drain_blocking(int device);
/// Runs all that the stream holds, and what it waits for; null: the default stream, after all blocking streams.
/// The first error of the stream's work, once.
cudaError_t drain(cudaStream_t stream);
cudaError_t drain_device(int device);
/// Null, or what hinders a use of the stream: destroyed, or of another device than the thread's current one.
cudaError_t stream_error(cudaStream_t stream);
bool is_capturing(cudaStream_t stream);
/// For calls that a capture forbids: invalidates the captures that object and returns
/// cudaErrorStreamCaptureUnsupported.
cudaError_t forbidden_in_capture();

/// Differs between the host's threads.
const void* this_thread();
int current_device();
/// Keeps an error for cudaGetLastError of this thread; returns it.
cudaError_t remember(cudaError_t error);
void set_lazy_streams(bool lazy, uint64_t seed);

}  // namespace minigpt4::simt

struct CUstream_st {
  int device = 0;
  unsigned flags = 0;
  std::deque<minigpt4::simt::Work> queue = {};
  cudaError_t failed = cudaSuccess;
  std::shared_ptr<minigpt4::simt::Capture> capture = {};
};
struct CUevent_st {
  int device = 0;
  unsigned flags = 0;
  std::shared_ptr<minigpt4::simt::Marker> marker = {};    // of the last recording
  std::shared_ptr<minigpt4::simt::Capture> capture = {};  // where it was recorded into a graph
  cudaStream_t captured_stream = nullptr;
};
