#include "addon/model_state.h"

namespace minigpt4::addon {

std::shared_ptr<ModelState> ModelState::create(Napi::Env env, std::unique_ptr<Engine> engine) {
  std::shared_ptr<ModelState> state(new ModelState());
  state->env_ = env;
  state->engine_ = std::move(engine);
  // no limit of the queue: a full one would have the engine wait for JavaScript
  state->post_ = Post::New(env, "minigpt4 model", 0, 1);
  state->post_.Unref(env);
  // Made after the function, so it runs before the function's own clean-up: the engine's thread is gone by then.
  napi_add_env_cleanup_hook(env, on_environment_exit, state.get());
  return state;
}

ModelState::~ModelState() {
  engine_.reset();  // idle by now: whatever runs keeps the model's object alive
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

void ModelState::post(Body body) noexcept {
  try {
    // none is left to tell when this object is on its way out
    auto* const parcel = new Parcel{weak_from_this().lock(), std::move(body)};
    // once it is sent it belongs to deliver()
    if (!parcel->state || post_.NonBlockingCall(parcel) != napi_ok) delete parcel;
  } catch (...) {
    // no memory to say anything with: the promise stays open, the engine goes on
  }
}

void ModelState::deliver(Napi::Env env, Napi::Function, std::nullptr_t*, Parcel* parcel) {
  const std::unique_ptr<Parcel> owned(parcel);
  if (!env) return;  // the environment is going
  try {
    owned->body(env);
  } catch (const Napi::Error&) {
    // Only an environment that is being terminated (a worker) refuses what bodies do outside of resolve(): nobody is left
    // to tell, and an exception out of here would end the process.
  }
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

void ModelState::resolve(uint64_t number, const std::function<Napi::Value()>& make) {
  if (!find(number)) return;
  Pending pending = take(number);
  if (pending.failure) return pending.deferred.Reject(pending.failure->Value());
  try {
    pending.deferred.Resolve(make());
  } catch (const Napi::Error& error) {
    pending.deferred.Reject(error.Value());
  }
}

void ModelState::reject(uint64_t number, Napi::Env env, const Error& error) {
  if (!find(number)) return;
  Pending pending = take(number);
  pending.deferred.Reject(pending.failure ? pending.failure->Value() : js_error(env, error).Value());
}

ModelState::Pending ModelState::take(uint64_t number) {
  Pending pending = std::move(pending_.find(number)->second);
  pending_.erase(number);
  if (pending_.empty() && !released_) post_.Unref(env_);
  return pending;
}

}  // namespace minigpt4::addon
