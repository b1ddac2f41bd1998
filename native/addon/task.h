// Work on another thread that ends as a promise, its error code kept (node-addon-api's worker keeps the message alone).
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "addon/errors.h"

namespace minigpt4::addon {

/// Makes the promise's value, on the JavaScript thread.
using Finish = std::function<Napi::Value(Napi::Env)>;

class Task : public Napi::AsyncWorker {
 public:
  /// `work` runs on a thread of the pool and must not touch JavaScript, nor bytes of an ArrayBuffer, which its owner may
  /// resize or transfer meanwhile. `keep`: an object that stays alive meanwhile. `done` (may be empty) runs on the
  /// JavaScript thread before the promise settles.
  static Napi::Promise start(Napi::Env env, std::function<Finish()> work, std::initializer_list<Napi::Object> keep = {},
                             std::function<void()> done = {}) {
    auto* task = new Task(env, std::move(work), std::move(done));
    for (const Napi::Object& object : keep) task->keep_.push_back(Napi::Persistent(object));
    task->Queue();
    return task->deferred_.Promise();
  }

 protected:
  void Execute() override {
    try {
      finish_ = work_();
    } catch (...) {
      error_ = as_error(std::current_exception());
    }
  }

  // an error travels in error_, so this one is called for both outcomes
  void OnOK() override {
    if (done_) done_();
    if (error_) {
      deferred_.Reject(js_error(Env(), *error_).Value());
      return;
    }
    try {
      deferred_.Resolve(finish_(Env()));
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    } catch (...) {
      deferred_.Reject(js_error(Env(), as_error(std::current_exception())).Value());
    }
  }

 private:
  Task(Napi::Env env, std::function<Finish()> work, std::function<void()> done)
      : Napi::AsyncWorker(env, "minigpt4"),
        work_(std::move(work)),
        done_(std::move(done)),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  std::vector<Napi::ObjectReference> keep_;
  std::function<Finish()> work_;
  std::function<void()> done_;
  Finish finish_;
  std::optional<Error> error_;
  Napi::Promise::Deferred deferred_;
};

}  // namespace minigpt4::addon
