// Pictures as JavaScript hands them over: RGB bytes with their sizes, checked.
#pragma once

#include <memory>

#include "addon/values.h"

namespace minigpt4::addon {

struct Picture {
  // [height, width, 3], a copy: the owner of an ArrayBuffer may resize or transfer it while the pool reads
  std::shared_ptr<const std::vector<uint8_t>> rgb;
  int width, height;
};

/// Errors: ERR_ARGUMENT, ERR_IMAGE (bytes that are not width · height · 3).
Picture to_picture(const Napi::Value& rgb, const Napi::Value& width, const Napi::Value& height);

}  // namespace minigpt4::addon
