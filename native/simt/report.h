// What the emulator and its checkers found wrong with a kernel, and the options of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace minigpt4::simt {

enum class FindingKind {
  barrier,        // threads of a block at different __syncthreads, or some have exited
  collective,     // lanes of a warp in different collectives or with different masks, or lanes that cannot come
  shuffle,        // a value asked of a lane that does not take part
  deadlock,       // no thread can run
  shared_memory,  // too much of it, parts that differ between threads, a red zone written
  copy,           // cp.async: misaligned, outside of memory, left unfinished
  misaligned,     // an access whose address is not a multiple of its size
  out_of_bounds,
  race,
  uninitialised,
  in_flight,  // an access to what a cp.async is about to write
  exception,  // C++ code threw inside a kernel
  overlap,    // a launch that overlaps, by a kernel that does not wait for the one before, or not soon enough
  host,       // the host's side: a use of the runtime that a device would not survive
};
const char* name(FindingKind kind);

struct Finding {
  FindingKind kind;
  std::string text;  // a whole sentence or more: kernel, block, thread and file:line included
  std::string kernel;
  uint64_t block = 0;   // number in the grid
  unsigned thread = 0;  // number in the block
  std::string file;     // where in the kernel; empty when not known
  int line = 0;
  uint64_t count = 1;  // times it was seen: same kind, kernel, file and line
};

/// Fills in kernel, block and thread of the running thread (where there is one), puts "kernel K, block B, thread T, at
/// FILE:LINE: " before `words` as the text, and adds it.
void report(FindingKind kind, const char* file, int line, const std::string& words);
/// The first of its kind, kernel, file and line is kept; the rest are counted. Thread-safe.
void add_finding(Finding finding);
/// All findings since the last call, in order.
std::vector<Finding> take_findings();
/// Findings not yet taken, counted with repetitions.
uint64_t findings_count();

enum class Order {
  fifo,      // warps take turns in the order in which they became able to run, lanes ascending; blocks ascending
  lifo,      // the warp that became able to run last goes first, lanes descending; blocks descending
  random,    // any runnable thread, blocks shuffled
  priority,  // a random priority per warp, rarely drawn anew: the highest runs as far as it goes; blocks shuffled
};
struct Options {
  Order order = Order::fifo;
  uint64_t seed = 1;
  /// The checker's build: another thread may run before one in so many accesses to shared memory; 0: never.
  unsigned preempt_every = 0;
  /// A launch with a finding prints it on stderr and returns cudaErrorLaunchFailure. False: findings are only
  /// collected, for tests of planted defects.
  bool findings_fail = true;
};
void set_options(const Options& options);
Options options();

}  // namespace minigpt4::simt
