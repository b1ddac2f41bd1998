// resizeBicubic and normalise.
#include "addon/pictures.h"
#include "addon/classes.h"
#include "addon/task.h"
#include "addon/values.h"
#include "image/bicubic.h"

namespace minigpt4::addon {

Picture to_picture(const Napi::Value& rgb, const Napi::Value& width, const Napi::Value& height) {
  constexpr int64_t kLargest = 1 << 20;  // a side
  Picture picture;
  const Bytes bytes = to_bytes(rgb, "rgb");
  picture.width = int(to_integer(width, "width", 1, kLargest));
  picture.height = int(to_integer(height, "height", 1, kLargest));
  const uint64_t expected = uint64_t(picture.width) * uint64_t(picture.height) * 3;
  if (bytes.size != expected) {
    fail(code::image, "a picture of ", picture.width, " x ", picture.height, " pixels takes ", expected,
         " bytes of RGB, found ", bytes.size);
  }
  picture.rgb = std::make_shared<const std::vector<uint8_t>>(bytes.data, bytes.data + bytes.size);
  return picture;
}

static Napi::Value resize(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Picture picture = to_picture(info[0], info[1], info[2]);
    const int size = int(to_integer(info[3], "size", 1, 1 << 14));
    return Task::start(env, [=]() -> Finish {
      auto out = std::make_shared<std::vector<uint8_t>>(
          resize_bicubic(picture.rgb->data(), picture.width, picture.height, size, size));
      return [out](Napi::Env e) -> Napi::Value { return from_bytes(e, out->data(), out->size()); };
    });
  });
}

static Napi::Value normalise_planes(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const int size = int(to_integer(info[1], "size", 1, 1 << 14));
    const Picture picture = to_picture(info[0], info[1], info[1]);
    // CLIP's, which every published model uses; a loaded model's own come from its file
    const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f}, std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    std::vector<float> planes(size_t(3) * size_t(size) * size_t(size));
    normalise(planes.data(), picture.rgb->data(), size, mean, std);
    return from_floats(env, planes);
  });
}

void define_pictures(Napi::Env env, Napi::Object exports) {
  exports.Set("resizeBicubic", Napi::Function::New(env, resize, "resizeBicubic"));
  exports.Set("normalise", Napi::Function::New(env, normalise_planes, "normalise"));
}

}  // namespace minigpt4::addon
