#include "addon/model_state.h"

namespace minigpt4::addon {

std::shared_ptr<ModelState> ModelState::create(Napi::Env env, std::unique_ptr<Engine> engine) {
  std::shared_ptr<ModelState> state(new ModelState());
  state->env_ = env;
  state->engine_ = std::move(engine);
  // no limit of the queue: a full one would have the engine wait for JavaScript
  state->post_ = Napi::ThreadSafeFunction::New(env, Napi::Function(), "minigpt4 model", 0, 1);
  state->post_.Unref(env);
  // Made after the function, so it runs before the function's own clean-up: the engine's thread is gone by then.
  napi_add_env_cleanup_hook(env, on_environment_exit, state.get());
  return state;
}

ModelState::~ModelState() {
  if (engine_) engine_->close();
  engine_.reset();
  release();
}

void ModelState::on_environment_exit(void* data) {
  auto* state = static_cast<ModelState*>(data);
  if (state->engine_) state->engine_->close();
  state->engine_.reset();
  state->released_ = true;  // the environment takes the function itself
}

Engine& ModelState::engine() {
  if (!engine_) fail(code::closed, "the model was closed");
  return *engine_;
}

std::unique_ptr<Engine> ModelState::take_engine() { return std::move(engine_); }

void ModelState::release() {
  if (released_) return;
  released_ = true;
  napi_remove_env_cleanup_hook(env_, on_environment_exit, this);
  post_.Release();
}

void ModelState::post(std::function<void(Napi::Env)> body) {
  auto* boxed = new std::function<void(Napi::Env)>(std::move(body));
  const napi_status status =
      post_.NonBlockingCall(boxed, [](Napi::Env env, Napi::Function, std::function<void(Napi::Env)>* call) {
        const std::unique_ptr<std::function<void(Napi::Env)>> owned(call);
        try {
          (*owned)(env);
        } catch (const Napi::Error&) {
          // Making plain values fails only while the environment (a worker that is terminated) is going: nobody is left
          // to tell, and an exception out of here would end the process.
        }
      });
  if (status != napi_ok) delete boxed;  // the environment is going: nobody is left to tell
}

uint64_t ModelState::begin(Pending pending, Napi::Env env) {
  if (pending_.empty()) post_.Ref(env);
  pending_.emplace(++next_, std::move(pending));
  return next_;
}

ModelState::Pending* ModelState::find(uint64_t number) {
  const auto found = pending_.find(number);
  return found == pending_.end() ? nullptr : &found->second;
}

void ModelState::resolve(uint64_t number, Napi::Value value) {
  Pending* pending = find(number);
  if (!pending) return;
  const Napi::Promise::Deferred deferred = pending->deferred;
  settled(number);
  deferred.Resolve(value);
}

void ModelState::reject(uint64_t number, Napi::Value reason) {
  Pending* pending = find(number);
  if (!pending) return;
  const Napi::Promise::Deferred deferred = pending->deferred;
  settled(number);
  deferred.Reject(reason);
}

void ModelState::settled(uint64_t number) {
  pending_.erase(number);
  if (pending_.empty() && !released_) post_.Unref(env_);
}

}  // namespace minigpt4::addon
