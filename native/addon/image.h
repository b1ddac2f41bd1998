// The vectors of one picture as JavaScript holds them (NativeImage of lib/addon.ts).
#pragma once

#include <napi.h>

#include "engine/engine.h"

namespace minigpt4::addon {

struct EncodedImage {
  Image image;
  Engine::EncodeTimes times;
};

Napi::Object make_image(Napi::Env env, EncodedImage image);

}  // namespace minigpt4::addon
