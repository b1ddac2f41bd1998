// The classes that JavaScript sees, and what the addon keeps for each environment (main thread or worker).
#pragma once

#include <napi.h>

#include <memory>

namespace minigpt4::addon {

/// Constructors by class; one set an environment, because the addon is loaded once a worker thread.
struct AddonData {
  Napi::FunctionReference model, image, sequence, trainer, gguf_writer, tokenizer, collective;
};

/// Makes an instance from native code. The payload reaches the constructor, which takes it; where the instance cannot be
/// made (a worker that is terminated) it stays with the caller and goes with him.
template <class Payload>
Napi::Object make(const Napi::FunctionReference& constructor, std::unique_ptr<Payload> payload) {
  return constructor.New({Napi::External<std::unique_ptr<Payload>>::New(constructor.Env(), &payload)});
}

/// The payload that make() gave, or an error for `new` from JavaScript.
template <class Payload>
std::unique_ptr<Payload> payload_of(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsExternal()) {
    throw Napi::TypeError::New(info.Env(), "this class is made by the addon's own functions, not by new");
  }
  return std::move(*info[0].As<Napi::External<std::unique_ptr<Payload>>>().Data());
}

void define_model(Napi::Env env, Napi::Object exports, AddonData& data);
void define_trainer(Napi::Env env, AddonData& data);
void define_files(Napi::Env env, Napi::Object exports, AddonData& data);
void define_text(Napi::Env env, Napi::Object exports, AddonData& data);
void define_pictures(Napi::Env env, Napi::Object exports);
void define_machine(Napi::Env env, Napi::Object exports);
void define_collective(Napi::Env env, Napi::Object exports, AddonData& data);

}  // namespace minigpt4::addon
