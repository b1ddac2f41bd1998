// Native errors as JavaScript errors: the message, and the code as a property. lib/addon.ts makes MiniGptError of them.
#pragma once

#include <napi.h>

#include <exception>
#include <string>

#include "core/error.h"

namespace minigpt4::addon {

inline Napi::Error js_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

inline Napi::Error js_error(Napi::Env env, const Error& error) { return js_error(env, error.code(), error.what()); }

/// Runs body on the JavaScript thread; native errors become JavaScript exceptions with a code.
template <class Body>
auto guarded(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;  // one of JavaScript's own
  } catch (...) {
    throw js_error(env, as_error(std::current_exception()));
  }
}

}  // namespace minigpt4::addon
