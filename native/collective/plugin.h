// The C interface between the addon and a plug-in that lets processes sum numbers: tables of functions, plain structs,
// no exceptions. The addon opens the plug-in when it is needed, so it depends on no library of collectives itself.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minigpt4::collective {

inline constexpr uint32_t kPluginVersion = 1;

/// Why a call failed. Texts are cut where they do not fit.
struct Failure {
  char code[32];  // one of minigpt4::code
  int rank;       // the process at fault, -1: not known
  char text[512];
};

struct Settings {
  int rank, size;
  const char* host;            // numeric address that the others reach this process at
  int64_t connect_timeout_ms;  // for each connection
  int64_t sum_timeout_ms;      // for each step of a sum
};

/// Functions that can fail return false and fill `failure`. `group` is what open() gave; calls on one group come one
/// after the other, but for abort(), which any thread may call at any time before close().
struct Plugin {
  uint32_t version;
  /// Opens this process's end of every connection; null on failure.
  void* (*open)(const Settings* settings, Failure* failure);
  /// What the others need to connect, an opaque text of bytes; valid until close().
  void (*address)(void* group, const char** bytes, size_t* size);
  /// Connects with everybody: addresses of all ranks in order, this one's included. Blocks.
  bool (*connect)(void* group, const char* const* addresses, const size_t* sizes, Failure* failure);
  /// Element-wise sums over all processes, in place, the same bits on each: added in float64 in the order of ranks,
  /// rounded once. Blocks. Failure ERR_COLLECTIVE: the group is of no more use and `values` are anything.
  bool (*sum_floats)(void* group, float* values, size_t count, Failure* failure);
  bool (*sum_doubles)(void* group, double* values, size_t count, Failure* failure);
  /// Ends the call that runs and all later ones as failures.
  void (*abort)(void* group);
  void (*close)(void* group);
};

/// The one symbol of a plug-in.
inline constexpr const char* kPluginSymbol = "minigpt4_collective_plugin";
using PluginFunction = const Plugin* (*)();

}  // namespace minigpt4::collective
