// What the benchmarks of a device share: their options, the clock, and the floor beside each time: the larger of the bytes
// that must move over the copy rate and the operations over the matrix rate, both measured on the same device by torch
// (peer.py) and given as options. Every result is one JSON object on a line of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/scratch.h"
#include "ops/ops.h"

namespace minigpt4::bench {

struct Settings {
  std::string device = "cuda", word;
  double copy = 3.0e12, matrix = 790e12;  // bytes and operations a second: an H100's, measured
  bool tiny = false;
};

/// Reads --device NAME, --copy BYTES/S, --matrix OPERATIONS/S, --tiny, --help and one word: only cases whose name has it.
/// Ends the program with status 2 and a sentence where they are not understood, with 0 and `usage` for --help.
Settings read_settings(int count, char** arguments, const char* usage);

/// What a piece of work cannot do without.
struct Work {
  double bytes = 0, operations = 0;
};

/// A number beside a time: "tokens_s" = count / seconds.
struct Rate {
  const char* name = nullptr;
  double count = 0;
};

class Bench {
 public:
  /// Errors: those of make_ops.
  explicit Bench(const Settings& settings);

  Ops& ops() { return *ops_; }
  bool tiny() const { return settings_.tiny; }
  bool wanted(const std::string& name) const { return name.find(settings_.word) != std::string::npos; }
  /// Cases told so far.
  int told() const { return told_; }
  /// For Ops::replay: one that nothing else of this program has.
  uint64_t new_key() { return ++keys_; }

  /// Tells the median time of body(i), where i counts the repetitions: launches alone, recorded so many at a time that what
  /// the host does between them does not count.
  void time_recorded(const std::string& name, const Work& work, const std::function<void(int)>& body, Rate rate = {});
  /// The same of a body that goes to and fro between host and device, as it is.
  void time_whole(const std::string& name, const Work& work, const std::function<void(int)>& body, Rate rate = {});

  /// Waits for all that was launched.
  void finish();

 private:
  Settings settings_;
  std::unique_ptr<Ops> ops_;
  Buffer<float> mark_;  // [1]: what it holds is asked for where all before must be done
  uint64_t keys_ = 0;
  int told_ = 0;

  double seconds_of(int count, const std::function<void(int)>& body);
  double median_of(double first, const std::function<void(int)>& body);
  void tell(const std::string& name, const Work& work, double seconds, Rate rate);
};

/// Runs `body`; what it throws is told on stderr. The exit status of a program.
int run(const std::function<void()>& body);

}  // namespace minigpt4::bench
