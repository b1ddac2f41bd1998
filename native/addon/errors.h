// Native errors as JavaScript errors: the message, and the code as a property. lib/addon.ts makes MiniGptError of them.
#pragma once

#include <napi.h>

#include <exception>
#include <new>
#include <string>

#include "core/error.h"

namespace minigpt4::addon {

inline Napi::Error js_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

inline Napi::Error js_error(Napi::Env env, const Error& error) { return js_error(env, error.code(), error.what()); }

/// Whatever was thrown, as an Error with a code.
inline Error as_error(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(code::out_of_memory, "memory ran out");
  } catch (const std::exception& error) {
    return Error(code::internal, error.what());
  } catch (...) {
    return Error(code::internal, "an exception of an unknown kind");
  }
}

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
