// Module initialisation: a table of contents. Types of all exports: lib/addon.ts.
#include <napi.h>

#include "addon/classes.h"
#include "ops/ops.h"

namespace minigpt4::addon {

static Napi::Value cpu_levels_of(const Napi::CallbackInfo& info) {
  const std::vector<std::string> levels = cpu_levels();
  Napi::Array array = Napi::Array::New(info.Env(), levels.size());
  for (size_t i = 0; i < levels.size(); ++i) array.Set(uint32_t(i), levels[i]);
  return array;
}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData();
  env.SetInstanceData(data);  // owns it
  exports.Set("cpuLevels", Napi::Function::New(env, cpu_levels_of, "cpuLevels"));
  define_model(env, exports, *data);
  define_trainer(env, *data);
  define_files(env, exports, *data);
  define_text(env, exports, *data);
  define_pictures(env, exports);
  define_machine(env, exports);
  define_collective(env, exports, *data);
  return exports;
}

}  // namespace minigpt4::addon

static Napi::Object init_minigpt4(Napi::Env env, Napi::Object exports) { return minigpt4::addon::init(env, exports); }
NODE_API_MODULE(minigpt4, init_minigpt4)
