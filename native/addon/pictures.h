// Pictures as JavaScript hands them over: RGB bytes with their sizes, checked.
#pragma once

#include "addon/values.h"

namespace minigpt4::addon {

struct Picture {
  Bytes bytes;  // [height, width, 3]
  int width, height;
};

/// Errors: ERR_ARGUMENT, ERR_IMAGE (bytes that are not width · height · 3).
Picture to_picture(const Napi::Value& rgb, const Napi::Value& width, const Napi::Value& height);

}  // namespace minigpt4::addon
