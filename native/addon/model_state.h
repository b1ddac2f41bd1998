// What a loaded model is on the JavaScript side: its engine, the way back to the JavaScript thread, and the promises that
// are still open. Everything here is touched by the JavaScript thread alone, but for post().
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

#include "addon/errors.h"
#include "engine/engine.h"

namespace minigpt4::addon {

class ModelState : public std::enable_shared_from_this<ModelState> {
 public:
  /// Keeps the process alive only while a promise is open; ends the engine when the environment goes.
  static std::shared_ptr<ModelState> create(Napi::Env env, std::unique_ptr<Engine> engine);
  ~ModelState();

  /// The engine, or ERR_CLOSED.
  Engine& engine();
  bool closed() const { return engine_ == nullptr; }
  /// Takes the engine out: the caller closes and destroys it (on any thread) and then calls release().
  std::unique_ptr<Engine> take_engine();
  /// The last use of the way back; open promises that the engine has refused still settle.
  void release();

  using Body = std::function<void(Napi::Env)>;
  /// Runs `body` on the JavaScript thread, where this object is alive as long. Any thread, while the engine lives.
  void post(Body body) noexcept;

  /// An open promise, by number, with what must live as long.
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::FunctionReference on_text;     // of a generation
    Napi::ObjectReference keep;          // the JavaScript object that the work belongs to
    std::optional<Napi::Error> failure;  // what on_text threw: the reason of the rejection to come
  };
  uint64_t begin(Pending pending, Napi::Env env);
  /// Null when it is settled already.
  Pending* find(uint64_t number);
  /// Resolves with what `make` gives, rejects with what it throws.
  void resolve(uint64_t number, const std::function<Napi::Value()>& make);
  void reject(uint64_t number, Napi::Env env, const Error& error);
  /// For the engine's thread: rejects promise `number` on JavaScript's. This object outlives the engine.
  std::function<void(const Error&)> rejecter(uint64_t number) {
    return [this, number](const Error& error) { post([=, this](Napi::Env env) { reject(number, env, error); }); };
  }

 private:
  struct Parcel {
    std::shared_ptr<ModelState> state;
    Body body;
  };
  static void deliver(Napi::Env env, Napi::Function, std::nullptr_t*, Parcel* parcel);
  using Post = Napi::TypedThreadSafeFunction<std::nullptr_t, Parcel, deliver>;

  ModelState() = default;
  napi_env env_ = nullptr;
  std::unique_ptr<Engine> engine_;
  Post post_;
  bool released_ = false;
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_ = 0;

  static void on_environment_exit(void* state);
  Pending take(uint64_t number);
};

}  // namespace minigpt4::addon
