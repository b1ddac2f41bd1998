// NativeModel, NativeImage and NativeSequence: arguments in, promises out. Their types: lib/addon.ts.
#include <napi.h>

#include "addon/classes.h"
#include "addon/image.h"
#include "addon/model_state.h"
#include "addon/pictures.h"
#include "addon/task.h"
#include "addon/text.h"
#include "addon/trainer.h"
#include "addon/values.h"
#include "core/gguf.h"
#include "image/bicubic.h"

namespace minigpt4::addon {
namespace {

// a borrowed method or a look-alike object must not reach native memory
constexpr napi_type_tag kImageTag = {0x6d696e6967707434, 0x696d616765000001};

class NativeImage : public Napi::ObjectWrap<NativeImage> {
 public:
  explicit NativeImage(const Napi::CallbackInfo& info) : ObjectWrap(info), payload_(payload_of<EncodedImage>(info)) {
    Value().TypeTag(&kImageTag);
    // the garbage collector should know what hangs on so small an object
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), bytes());
  }
  ~NativeImage() override { Napi::MemoryManagement::AdjustExternalMemory(Env(), -bytes()); }
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeImage",
        {InstanceAccessor<&NativeImage::tokens>("tokens"), InstanceAccessor<&NativeImage::encode_ms>("encodeMs"),
         InstanceAccessor<&NativeImage::vit_ms>("vitMs"), InstanceMethod<&NativeImage::to_array>("toFloat32Array")});
  }
  const Image& image() const { return payload_->image; }

 private:
  std::unique_ptr<EncodedImage> payload_;
  int64_t bytes() const { return int64_t(image()->values.size() * sizeof(float)); }
  Napi::Value tokens(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), image()->tokens); }
  Napi::Value encode_ms(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), payload_->times.all); }
  Napi::Value vit_ms(const Napi::CallbackInfo& info) {
    const std::optional<double>& vit = payload_->times.vit;
    return vit ? Napi::Number::New(info.Env(), *vit) : info.Env().Undefined();
  }
  Napi::Value to_array(const Napi::CallbackInfo& info) { return from_floats(info.Env(), image()->values); }
};

PromptPart to_part(const Napi::Value& value, const Tokenizer& tokenizer) {
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  const Napi::Object object = to_object(value, "prompt part");
  if (object.CheckTypeTag(&kImageTag)) return NativeImage::Unwrap(object)->image();
  if (has(object, "ids")) return to_ids(object.Get("ids"), "prompt ids");
  if (!has(object, "token"))
    fail(code::argument, "prompt part: expected a string, an image, { token } or { ids }, found another object");
  const Napi::Value token = object.Get("token");
  if (!token.IsString()) return int32_t(to_integer(token, "token", 0, tokenizer.size() - 1));
  const std::string piece = token.As<Napi::String>().Utf8Value();
  const int32_t id = tokenizer.id_of(piece);
  if (id < 0) fail(code::argument, "token \"", piece, "\" is not in the vocabulary");
  return id;
}

std::vector<PromptPart> to_parts(const Napi::Value& value, const Tokenizer& tokenizer) {
  const Napi::Array array = to_array(value, "prompt");
  std::vector<PromptPart> parts;
  for (uint32_t i = 0; i < array.Length(); ++i) parts.push_back(to_part(array.Get(i), tokenizer));
  return parts;
}

GenerateOptions to_generate_options(const Napi::Object& request) {
  GenerateOptions options;
  options.max_tokens = int(to_integer(request.Get("maxTokens"), "maxTokens", 1, 1 << 24));
  if (has(request, "lookup")) options.lookup = int(to_integer(request.Get("lookup"), "lookup", 0, kMostLookup));
  options.sampling.temperature = float(to_number(request.Get("temperature"), "temperature"));
  options.sampling.top_k = int(to_integer(request.Get("topK"), "topK", 0, 1 << 24));
  options.sampling.top_p = float(to_number(request.Get("topP"), "topP"));
  options.sampling.min_p = float(to_number(request.Get("minP"), "minP"));
  options.sampling.repetition_penalty = float(to_number(request.Get("repetitionPenalty"), "repetitionPenalty"));
  options.sampling.seed = to_seed(request.Get("seed"), "seed");
  options.stop = to_strings(request.Get("stop"), "stop");
  options.stop_ids = to_ids(request.Get("stopIds"), "stopIds");
  return options;
}

Napi::Object from_result(Napi::Env env, const GenerateResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("text", result.text);
  object.Set("ids", from_ids(env, result.ids));
  object.Set("finishReason", name(result.reason));
  object.Set("promptTokens", result.prompt_tokens);
  object.Set("cachedTokens", result.cached_tokens);
  object.Set("imageTokens", result.image_tokens);
  object.Set("guessedTokens", result.guessed_tokens);
  object.Set("acceptedTokens", result.accepted_tokens);
  object.Set("prefillMs", result.prefill_ms);
  object.Set("decodeMs", result.decode_ms);
  object.Set("firstTokenMs", result.first_token_ms);
  return object;
}

Napi::Object from_stages(Napi::Env env, const std::vector<Engine::Stage>& stages) {
  Napi::Object object = Napi::Object::New(env);
  for (const Engine::Stage& stage : stages) object.Set(stage.name, from_floats(env, stage.values));
  return object;
}

struct SequencePayload {
  std::shared_ptr<ModelState> state;
  ConversationRef conversation;
  Napi::ObjectReference model;  // a model outlives its sequences
};

class NativeSequence : public Napi::ObjectWrap<NativeSequence> {
 public:
  explicit NativeSequence(const Napi::CallbackInfo& info) : ObjectWrap(info), p_(payload_of<SequencePayload>(info)) {}
  ~NativeSequence() override { shut(); }
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeSequence",
        {InstanceMethod<&NativeSequence::generate>("generate"), InstanceMethod<&NativeSequence::abort>("abort"),
         InstanceMethod<&NativeSequence::close>("close")});
  }

 private:
  std::unique_ptr<SequencePayload> p_;
  bool closed_ = false;

  Napi::Value generate(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    return guarded(env, [&]() -> Napi::Value {
      Engine& engine = p_->state->engine();
      if (closed_) fail(code::closed, "the conversation was closed");
      const Napi::Object request = to_object(info[0], "request");
      std::vector<PromptPart> parts = to_parts(request.Get("prompt"), engine.tokenizer());
      GenerateOptions options = to_generate_options(request);
      ModelState::Pending pending{
          Napi::Promise::Deferred::New(env), {}, Napi::Persistent(Value().As<Napi::Object>()), {}};
      if (info.Length() > 1 && !info[1].IsUndefined())
        pending.on_text = Napi::Persistent(to_function(info[1], "onText"));
      const Napi::Promise promise = pending.deferred.Promise();
      const std::shared_ptr<ModelState> state = p_->state;
      const uint64_t number = state->begin(std::move(pending), env);
      engine.generate(p_->conversation, std::move(parts), std::move(options),
                      callbacks(state.get(), number, p_->conversation));
      return promise;
    });
  }

  /// The engine's answers, brought to the JavaScript thread. `state` outlives the engine.
  static GenerateCallbacks callbacks(ModelState* state, uint64_t number, ConversationRef conversation) {
    GenerateCallbacks calls;
    calls.on_text = [=](std::string text, std::vector<int32_t> ids) {
      state->post([=](Napi::Env env) {
        ModelState::Pending* pending = state->find(number);
        if (!pending || pending->on_text.IsEmpty() || pending->failure) return;
        try {
          pending->on_text.Call({Napi::String::New(env, text), from_ids(env, ids)});
        } catch (const Napi::Error& error) {
          // the caller's own function failed: that is the answer's end, told when the engine has let go of it
          if (ModelState::Pending* still = state->find(number)) still->failure = error;
          if (!state->closed()) state->engine().abort(conversation);
        }
      });
    };
    calls.on_done = [=](GenerateResult result) {
      state->post([=](Napi::Env env) { state->resolve(number, [&] { return from_result(env, result); }); });
    };
    calls.on_error = state->rejecter(number);
    return calls;
  }

  Napi::Value abort(const Napi::CallbackInfo& info) {
    if (!p_->state->closed()) p_->state->engine().abort(p_->conversation);
    return info.Env().Undefined();
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    shut();
    return info.Env().Undefined();
  }
  void shut() {
    if (!closed_ && p_ && !p_->state->closed()) p_->state->engine().close(p_->conversation);
    closed_ = true;
  }
};

class NativeModel : public Napi::ObjectWrap<NativeModel> {
 public:
  explicit NativeModel(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    state_ = ModelState::create(info.Env(), payload_of<Engine>(info));
  }
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeModel",
        {InstanceMethod<&NativeModel::info>("info"), InstanceMethod<&NativeModel::encode>("encode"),
         InstanceMethod<&NativeModel::decode>("decode"), InstanceMethod<&NativeModel::encode_image>("encodeImage"),
         InstanceMethod<&NativeModel::encode_features>("encodeFeatures"),
         InstanceMethod<&NativeModel::open_sequence>("openSequence"),
         InstanceMethod<&NativeModel::open_trainer>("openTrainer"),
         InstanceMethod<&NativeModel::trace_image>("traceImage"),
         InstanceMethod<&NativeModel::trace_prompt>("tracePrompt"), InstanceMethod<&NativeModel::close>("close")});
  }

 private:
  std::shared_ptr<ModelState> state_;
  Napi::ObjectReference closing_;  // the promise of close()

  static const VisionConfig& vision_of(Engine& engine) {
    if (!engine.model().sees())
      fail(code::argument, "this is a language model alone, expected one with a vision encoder");
    return engine.model().vision();
  }

  uint64_t begin(Napi::Env env, Napi::Promise& promise) {
    ModelState::Pending pending{
        Napi::Promise::Deferred::New(env), {}, Napi::Persistent(Value().As<Napi::Object>()), {}};
    promise = pending.deferred.Promise();
    return state_->begin(std::move(pending), env);
  }

  static std::function<void(std::vector<Engine::Stage>)> stages_resolver(ModelState* state, uint64_t number) {
    return [=](std::vector<Engine::Stage> stages) {
      auto shared = std::make_shared<std::vector<Engine::Stage>>(std::move(stages));
      state->post([=](Napi::Env env) { state->resolve(number, [&] { return from_stages(env, *shared); }); });
    };
  }

  Napi::Value info(const Napi::CallbackInfo& call) {
    Napi::Env env = call.Env();
    return guarded(env, [&]() -> Napi::Value {
      const Engine& engine = state_->engine();
      const MiniGpt4& model = engine.model();
      const LlamaConfig& llama = model.llama();
      Napi::Object object = Napi::Object::New(env);
      object.Set("name", model.sees() ? model.vision().name : "");
      object.Set("variant", model.sees() ? model.vision().variant : "");
      object.Set("template", model.sees() ? model.vision().conversation : "");
      object.Set("device", engine.device());
      const MiniGpt4& loaded = engine.model();
      object.Set("gpuLayers", loaded.on_device() ? loaded.placement().device_layers : 0);
      object.Set("visionDevice", loaded.on_device() && loaded.placement().vision_on_device ? "gpu" : "cpu");
      object.Set("imageBatch", model.sees() ? model.max_images() : 0);
      object.Set("imageSize", model.sees() ? model.vision().vit.image_size : 0);
      object.Set("imageTokens", model.image_tokens());
      object.Set("projectionInput", model.sees() ? model.projection().input : 0);
      object.Set("hasQformer", model.sees() && model.vision().qformer.has_value());
      object.Set("width", llama.width);
      object.Set("layers", llama.depth);
      object.Set("heads", llama.heads);
      object.Set("kvHeads", llama.kv_heads);
      object.Set("vocabulary", llama.vocab);
      object.Set("contextLength", engine.context_length());
      object.Set("bos", engine.tokenizer().vocabulary().bos);
      object.Set("eos", engine.tokenizer().vocabulary().eos);
      Napi::Object parameters = Napi::Object::New(env);
      parameters.Set("vision", double(model.parameters().vision));
      parameters.Set("qformer", double(model.parameters().qformer));
      parameters.Set("projection", double(model.parameters().projection));
      parameters.Set("llm", double(model.parameters().llm));
      object.Set("parameters", parameters);
      Napi::Array memory = Napi::Array::New(env);
      for (const Holding& holding : engine.holdings()) {
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("owner", holding.owner);
        entry.Set("bytes", double(holding.bytes));
        entry.Set("peak", double(holding.peak));
        entry.Set("pieces", double(holding.pieces));
        memory.Set(memory.Length(), entry);
      }
      object.Set("memory", memory);
      return object;
    });
  }

  Napi::Value encode(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&] { return encode_text(call, state_->engine().tokenizer()); });
  }

  Napi::Value decode(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&] { return decode_ids(call, state_->engine().tokenizer()); });
  }

  /// Makes JavaScript's value of an encoded picture.
  using Outcome = std::function<Napi::Value(Napi::Env, const EncodedImage&)>;

  /// The picture is prepared on the pool, then encoded on the engine's thread.
  Napi::Value encode_picture(const Napi::CallbackInfo& call, bool projected, const Outcome& outcome) {
    Napi::Env env = call.Env();
    return guarded(env, [&]() -> Napi::Value {
      const VitConfig& vit = vision_of(state_->engine()).vit;
      const Picture picture = to_picture(call[0], call[1], call[2]);
      const int S = vit.image_size;
      const std::array<float, 3> mean = vit.mean, std = vit.std;
      const std::shared_ptr<ModelState> state = state_;
      const auto self = std::make_shared<Napi::ObjectReference>(Napi::Persistent(Value().As<Napi::Object>()));
      const auto unwanted = std::make_shared<std::atomic<bool>>(false);
      if (call.Length() > 3 && !call[3].IsUndefined()) {
        to_function(call[3], "onBegin").Call({Napi::Function::New(env, [unwanted](const Napi::CallbackInfo& info) {
          *unwanted = true;
          return info.Env().Undefined();
        })});
      }
      return Task::start(env, [=]() -> Finish {
        const auto pixels = std::make_shared<std::vector<float>>();
        if (!*unwanted) {
          const std::vector<uint8_t> square = resize_bicubic(picture.rgb->data(), picture.width, picture.height, S, S);
          pixels->resize(size_t(3) * size_t(S) * size_t(S));
          normalise(pixels->data(), square.data(), S, mean.data(), std.data());
        }
        return [=](Napi::Env e) -> Napi::Value {
          return guarded(e, [&]() -> Napi::Value {
            Engine& engine = state->engine();
            ModelState::Pending pending{Napi::Promise::Deferred::New(e), {}, std::move(*self), {}};
            const Napi::Promise promise = pending.deferred.Promise();
            ModelState* const to = state.get();
            const uint64_t number = state->begin(std::move(pending), e);
            engine.encode({std::move(*pixels), projected, unwanted,
                           [=](const Image& image, const Engine::EncodeTimes& times) {
                             to->post([=](Napi::Env made) {
                               to->resolve(number, [&] { return outcome(made, {image, times}); });
                             });
                           },
                           state->rejecter(number)});
            return promise;
          });
        };
      });
    });
  }

  Napi::Value encode_image(const Napi::CallbackInfo& call) { return encode_picture(call, true, make_image); }

  Napi::Value encode_features(const Napi::CallbackInfo& call) {
    return encode_picture(call, false, [](Napi::Env env, const EncodedImage& encoded) -> Napi::Value {
      return from_floats(env, encoded.image->values);
    });
  }

  Napi::Value open_trainer(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&] { return addon::open_trainer(call, state_, Value().As<Napi::Object>()); });
  }

  Napi::Value open_sequence(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&]() -> Napi::Value {
      auto payload = std::make_unique<SequencePayload>(
          SequencePayload{state_, state_->engine().open(), Napi::Persistent(Value().As<Napi::Object>())});
      return make(call.Env().GetInstanceData<AddonData>()->sequence, std::move(payload));
    });
  }

  Napi::Value trace_image(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&]() -> Napi::Value {
      Engine& engine = state_->engine();
      std::vector<float> pixels = to_floats(call[0], "pixels");
      const size_t S = size_t(vision_of(engine).vit.image_size);
      if (pixels.size() != 3 * S * S)
        fail(code::shape, "pixels: ", pixels.size(), " values, expected 3 x ", S, " x ", S);
      Napi::Promise promise;
      const uint64_t number = begin(call.Env(), promise);
      engine.trace_image(std::move(pixels), stages_resolver(state_.get(), number), state_->rejecter(number));
      return promise;
    });
  }

  Napi::Value trace_prompt(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&]() -> Napi::Value {
      Engine& engine = state_->engine();
      std::vector<PromptPart> parts = to_parts(call[0], engine.tokenizer());
      Napi::Promise promise;
      const uint64_t number = begin(call.Env(), promise);
      engine.trace_prompt(std::move(parts), stages_resolver(state_.get(), number), state_->rejecter(number));
      return promise;
    });
  }

  Napi::Value close(const Napi::CallbackInfo& call) {
    if (!closing_.IsEmpty()) return closing_.Value();
    const std::shared_ptr<ModelState> state = state_;
    // waiting for the engine's step and freeing gigabytes are not for the event loop
    auto engine = std::make_shared<std::unique_ptr<Engine>>(state->take_engine());
    const Napi::Promise promise = Task::start(
        call.Env(),
        [engine]() -> Finish {
          engine->reset();
          return [](Napi::Env env) { return env.Undefined(); };
        },
        {Value()}, [state] { state->release(); });
    closing_ = Napi::Persistent(promise.As<Napi::Object>());
    return promise;
  }
};

/// Tells a JavaScript function how far loading is. What it throws becomes the load's rejection.
class Progress {
 public:
  Progress(Napi::Env env, const Napi::Function& listener)
      : calls_(Napi::ThreadSafeFunction::New(env, listener, "minigpt4 load", 0, 1)) {}

  /// Any thread; a call for every hundredth at most.
  void tell(double fraction, const std::shared_ptr<Progress>& self) {
    if (fraction < 1 && fraction - told_ < 0.01) return;
    told_ = fraction;
    calls_.NonBlockingCall([self, fraction](Napi::Env env, Napi::Function listener) {
      if (self->failure_) return;
      try {
        listener.Call({Napi::Number::New(env, fraction)});
      } catch (const Napi::Error& error) {
        self->failure_ = error;
      }
    });
  }
  // The JavaScript thread:
  void release() { calls_.Release(); }
  void check() const {
    if (failure_) throw *failure_;
  }

 private:
  Napi::ThreadSafeFunction calls_;
  double told_ = -1;
  std::optional<Napi::Error> failure_;  // the JavaScript thread only
};

DeviceOptions to_device_options(const Napi::Object& o) {
  DeviceOptions device;
  if (has(o, "device")) device.device = to_string(o.Get("device"), "device");
  if (has(o, "threads")) device.cpu.threads = int(to_integer(o.Get("threads"), "threads", 1, 1024));
  if (has(o, "cpuLevel")) device.cpu.level = to_string(o.Get("cpuLevel"), "cpuLevel");
  return device;
}

PlacementWishes to_placement_wishes(const Napi::Object& o) {
  PlacementWishes wishes;
  if (has(o, "gpuLayers")) wishes.device_layers = int(to_integer(o.Get("gpuLayers"), "gpuLayers", 0, 1 << 24));
  if (has(o, "imageBatch")) wishes.images = int(to_integer(o.Get("imageBatch"), "imageBatch", 1, kMostImages));
  if (has(o, "gpuMemory")) wishes.memory = uint64_t(to_integer(o.Get("gpuMemory"), "gpuMemory", 1, int64_t(1) << 53));
  if (has(o, "visionDevice")) {
    const std::string device = to_string(o.Get("visionDevice"), "visionDevice");
    if (device != "cpu" && device != "gpu")
      fail(code::argument, "visionDevice: expected \"cpu\" or \"gpu\", found \"", device, "\"");
    wishes.vision_on_device = device == "gpu";
  }
  return wishes;
}

EngineOptions to_engine_options(const Napi::Object& o) {
  constexpr int64_t kLongest = 1 << 24;
  EngineOptions options;
  if (has(o, "contextLength"))
    options.context_length = int(to_integer(o.Get("contextLength"), "contextLength", 1, kLongest));
  if (has(o, "cacheLength")) options.cache_length = int(to_integer(o.Get("cacheLength"), "cacheLength", 1, kLongest));
  if (has(o, "kvType")) {
    options.kv_type = to_type(o.Get("kvType"), "kvType");
    if (options.kv_type != Type::F16 && options.kv_type != Type::F32 && options.kv_type != Type::Q8_0) {
      fail(code::argument, "kvType: expected f16, f32 or q8_0, found ", name(options.kv_type));
    }
  }
  return options;
}

Napi::Value load_model(const Napi::CallbackInfo& call) {
  Napi::Env env = call.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Napi::Object o = to_object(call[0], "options");
    const auto path = [&](const char* key) { return has(o, key) ? to_string(o.Get(key), key) : std::string(); };
    const std::string model_path = path("model"), llm_path = path("llm"), projection_path = path("projection");
    const DeviceOptions device = to_device_options(o);
    const EngineOptions options = to_engine_options(o);
    const PlacementWishes wishes = to_placement_wishes(o);
    std::shared_ptr<Progress> progress;
    if (has(o, "onProgress"))
      progress = std::make_shared<Progress>(env, to_function(o.Get("onProgress"), "onProgress"));
    return Task::start(
        env,
        [=]() -> Finish {
          const ModelFiles files = ModelFiles::open(model_path, llm_path, projection_path);
          auto tokenizer = make_tokenizer(vocabulary_from_gguf(files.language_model()));
          Backends backends{make_ops(device), nullptr};
          const LlamaConfig llama = read_llama_config(files.language_model());
          const CacheWishes cache = cache_of(options, llama);
          Placement placement;
          try {
            placement = place(files, *backends.device, wishes, cache);
          } catch (const Error& error) {
            // whoever names a device wants to know that it holds nothing of the model
            if (device.device != "auto" || std::string_view(error.code()) != code::out_of_memory) throw;
            backends.device = make_cpu_ops(device.cpu);
            placement = place(files, *backends.device, wishes, cache);
          }
          if (placement.device_layers < llama.depth || (files.model && !placement.vision_on_device))
            backends.host = make_cpu_ops(device.cpu);
          auto model = std::make_unique<MiniGpt4>(std::move(backends), placement, files, [&](double fraction) {
            if (progress) progress->tell(fraction, progress);
          });
          auto engine = std::make_shared<std::unique_ptr<Engine>>(
              std::make_unique<Engine>(std::move(model), std::move(tokenizer), options));
          return [engine, progress](Napi::Env e) -> Napi::Value {
            if (progress) progress->check();
            return make(e.GetInstanceData<AddonData>()->model, std::move(*engine));
          };
        },
        {},
        [=] {
          if (progress) progress->release();
        });
  });
}

}  // namespace

Napi::Object make_image(Napi::Env env, EncodedImage image) {
  return make(env.GetInstanceData<AddonData>()->image, std::make_unique<EncodedImage>(std::move(image)));
}

void define_model(Napi::Env env, Napi::Object exports, AddonData& data) {
  data.model = Napi::Persistent(NativeModel::define(env));
  data.image = Napi::Persistent(NativeImage::define(env));
  data.sequence = Napi::Persistent(NativeSequence::define(env));
  exports.Set("loadModel", Napi::Function::New(env, load_model, "loadModel"));
}

}  // namespace minigpt4::addon
