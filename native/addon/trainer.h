// The training of a model's projection as JavaScript sees it (NativeTrainer of lib/addon.ts).
#pragma once

#include <napi.h>

#include <memory>

#include "addon/model_state.h"

namespace minigpt4::addon {

/// NativeModel.openTrainer(options): a promise. `model` is the JavaScript object, which lives as long as its trainers.
Napi::Value open_trainer(const Napi::CallbackInfo& call, const std::shared_ptr<ModelState>& state,
                         const Napi::Object& model);

}  // namespace minigpt4::addon
