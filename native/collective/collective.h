// A group of processes that sum numbers, through the plug-in that was built for it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "collective/plugin.h"

namespace minigpt4 {

/// Calls block, and come one after the other, but for abort().
class Collective {
 public:
  struct Options {
    int rank = 0, size = 1;
    std::string host;  // numeric address that the others reach this process at
    int64_t connect_timeout_ms = 60'000;
    int64_t sum_timeout_ms = 30 * 60'000;
  };

  /// Opens the plug-in in `folder` and this process's end of every connection. Errors: ERR_NO_BACKEND (no plug-in, or
  /// one that cannot be loaded), ERR_COLLECTIVE.
  Collective(const std::string& folder, const Options& options);
  ~Collective();
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;

  /// What every other process needs for its connect().
  std::string address() const;
  /// `addresses`: of all ranks in order. Errors: ERR_COLLECTIVE.
  void connect(const std::vector<std::string>& addresses);
  /// Element-wise sums over all processes, in place, the same bits on each: added in float64 in the order of ranks,
  /// rounded once. Errors: ERR_COLLECTIVE (which rank failed; no call succeeds after it), ERR_OUT_OF_MEMORY.
  void sum(std::span<float> values);
  void sum(std::span<double> values);
  /// Ends the call that runs, and all later ones, with ERR_COLLECTIVE. Any thread.
  void abort();

 private:
  int size_;
  const collective::Plugin* plugin_;
  void* group_;
};

}  // namespace minigpt4
