// The one exception type of the native code; the addon turns it into a JavaScript MiniGptError with the same code.
#pragma once

#include <exception>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace minigpt4 {

/// Error codes, as JavaScript sees them in `MiniGptError.code`.
namespace code {
inline constexpr const char* file_not_found = "ERR_FILE_NOT_FOUND";  // no such file, or not a regular one
inline constexpr const char* file_read = "ERR_FILE_READ";            // the system failed to open, read or write
inline constexpr const char* file_format = "ERR_FILE_FORMAT";        // contents are not what the format says
inline constexpr const char* file_changed = "ERR_FILE_CHANGED";      // truncated or replaced while in use
inline constexpr const char* missing_tensor = "ERR_MISSING_TENSOR";
inline constexpr const char* shape = "ERR_SHAPE";              // a tensor's or an argument's shape
inline constexpr const char* unsupported = "ERR_UNSUPPORTED";  // valid, but not something this version does
inline constexpr const char* argument = "ERR_ARGUMENT";        // a caller's value out of range
inline constexpr const char* image = "ERR_IMAGE";              // a picture that cannot be used
inline constexpr const char* context_full = "ERR_CONTEXT_FULL";
inline constexpr const char* out_of_memory = "ERR_OUT_OF_MEMORY";
inline constexpr const char* no_backend = "ERR_NO_BACKEND";
inline constexpr const char* aborted = "ERR_ABORTED";
inline constexpr const char* closed = "ERR_CLOSED";
inline constexpr const char* nan_loss = "ERR_NAN_LOSS";      // a loss or a gradient that is not finite
inline constexpr const char* collective = "ERR_COLLECTIVE";  // another process of the run failed or cannot be reached
inline constexpr const char* cuda = "ERR_CUDA";              // a device failed while it computed
inline constexpr const char* internal = "ERR_INTERNAL";      // a defect of ours
}  // namespace code

/// What every failure caused by a user, a file or the system is thrown as.
/// The message is one sentence that names what was expected and what was found; it is never empty,
/// because node-addon-api takes an empty message for success.
class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message)
      : std::runtime_error(message.empty() ? std::string("unknown error") : message), code_(code) {}
  const char* code() const noexcept { return code_; }

 private:
  const char* code_;  // one of minigpt4::code, static storage
};

/// Throws Error{code, parts written one after the other}: fail(code::shape, name, " has ", rows, " rows, expected ", want).
template <class... Parts>
[[noreturn]] void fail(const char* code, Parts&&... parts) {
  std::ostringstream text;
  (text << ... << std::forward<Parts>(parts));
  throw Error(code, text.str());
}

/// Whatever was thrown, as an Error with a code. Call it in a catch block's thread with std::current_exception().
inline Error as_error(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(code::out_of_memory, "memory ran out, expected enough for the work at hand");
  } catch (const std::exception& error) {
    return Error(code::internal, error.what());
  } catch (...) {
    return Error(code::internal, "an exception of an unknown kind");
  }
}

}  // namespace minigpt4
