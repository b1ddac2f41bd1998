// The interface between the addon and a plug-in with a backend: one exported function that returns a table of functions.
//
// The backend is a C++ object and both sides call its virtual functions, because they are built together from the same
// headers (`interface` sees to it). Exceptions do not cross: each side may have a C++ library of its own inside, with its own
// notes about what was thrown. So the addon calls a backend through guard() alone, which catches in the plug-in what the
// plug-in threw and hands it over as a Failure; and where the plug-in calls back into the addon (the body of a replay), the
// addon catches its own and asks stop() to unwind the plug-in.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace minigpt4::plugin {

/// An Error as plain bytes. Texts are cut where they do not fit.
struct Failure {
  char code[32];  // one of minigpt4::code
  char text[1500];
};

struct Table {
  const char* interface;  // kInterface of the plug-in's build
  /// body(context), which calls the backend; true unless the plug-in's code threw, which `failure` tells then.
  bool (*guard)(void (*body)(void*), void* context, Failure* failure);
  /// Throws what the guard() below it on the stack catches; its failure is of no interest.
  void (*stop)();
  /// A backend of device `index`. Throws: call it within guard(). Errors: ERR_NO_BACKEND says what is missing (a driver, a
  /// newer one, a device, that device), ERR_OUT_OF_MEMORY, ERR_CUDA.
  std::unique_ptr<Ops> (*make)(int index);
};

// What both sides must have in common. The build's own part is a hash of the headers whose types cross the border.
#ifndef MINIGPT4_INTERFACE
#define MINIGPT4_INTERFACE "built by hand"
#endif
#if defined(_LIBCPP_VERSION)
inline constexpr const char* kInterface = MINIGPT4_INTERFACE ", libc++";
#elif defined(_GLIBCXX_USE_CXX11_ABI) && _GLIBCXX_USE_CXX11_ABI
inline constexpr const char* kInterface = MINIGPT4_INTERFACE ", libstdc++";
#else
inline constexpr const char* kInterface = MINIGPT4_INTERFACE ", libstdc++ with the old strings";
#endif

/// The one symbol of a plug-in.
inline constexpr const char* kSymbol = "minigpt4_ops_plugin";
using Function = const Table* (*)();

}  // namespace minigpt4::plugin
