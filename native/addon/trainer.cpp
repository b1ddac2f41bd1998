#include "addon/trainer.h"

#include <atomic>

#include "addon/classes.h"
#include "addon/image.h"
#include "addon/values.h"
#include "train/trainer.h"

namespace minigpt4::addon {
namespace {

/// Float32Array, or Uint16Array with the bits of IEEE halfs.
std::vector<float> to_features(const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint16_array)
    return to_floats(value, "features (a Float32Array, or a Uint16Array of halfs)");
  const auto halfs = value.As<Napi::Uint16Array>();
  std::vector<float> values(halfs.ElementLength());
  for (size_t i = 0; i < values.size(); ++i) values[i] = half_to_float(halfs.Data()[i]);
  return values;
}

std::vector<TrainingSample> to_samples(const Napi::Value& value) {
  const Napi::Array array = to_array(value, "samples");
  const uint32_t count = array.Length();  // reading a sample may run JavaScript, which may change it
  std::vector<TrainingSample> samples(count);
  for (uint32_t i = 0; i < count; ++i) {
    const Napi::Object sample = to_object(array.Get(i), "sample");
    samples[i] = {to_ids(sample.Get("ids"), "ids"), to_ids(sample.Get("targets"), "targets"),
                  to_features(sample.Get("features"))};
  }
  return samples;
}

ProjectionValues to_projection(const Napi::Object& object) {
  return {to_floats(object.Get("weight"), "weight"), to_floats(object.Get("bias"), "bias")};
}

Napi::Object from_projection(Napi::Env env, const ProjectionValues& values) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("weight", from_floats(env, values.weight));
  object.Set("bias", from_floats(env, values.bias));
  return object;
}

Napi::Object from_loss(Napi::Env env, const BatchLoss& loss) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("loss", loss.loss);
  object.Set("targets", double(loss.targets));
  auto losses = Napi::Float64Array::New(env, loss.samples.size());
  auto counts = Napi::Int32Array::New(env, loss.samples.size());
  for (size_t i = 0; i < loss.samples.size(); ++i) {
    losses[i] = loss.samples[i].loss;
    counts[i] = int32_t(loss.samples[i].targets);
  }
  object.Set("losses", losses);
  object.Set("counts", counts);
  return object;
}

constexpr int64_t kMostSteps = int64_t(1) << 53;

TrainerOptions to_options(const Napi::Value& value) {
  TrainerOptions options;
  if (value.IsUndefined()) return options;
  const Napi::Object o = to_object(value, "options");
  if (has(o, "maxRows")) options.max_rows = int(to_integer(o.Get("maxRows"), "maxRows", 1, 1 << 20));
  if (has(o, "beta1")) options.beta1 = to_number(o.Get("beta1"), "beta1");
  if (has(o, "beta2")) options.beta2 = to_number(o.Get("beta2"), "beta2");
  if (has(o, "epsilon")) options.epsilon = to_number(o.Get("epsilon"), "epsilon");
  if (has(o, "weightDecay")) options.weight_decay = to_number(o.Get("weightDecay"), "weightDecay");
  return options;
}

/// Calls have numbers; an abort ends those up to the newest.
struct Calls {
  std::atomic<uint64_t> newest{0}, aborted{0};
};

struct TrainerPayload {
  std::shared_ptr<ModelState> state;
  std::weak_ptr<Trainer> trainer;  // housed by the engine, in whose memory it lives
  Napi::ObjectReference model;     // a model outlives its trainers
  int64_t bytes;                   // that hang on it: the garbage collector should know
};

class NativeTrainer : public Napi::ObjectWrap<NativeTrainer> {
 public:
  explicit NativeTrainer(const Napi::CallbackInfo& info) : ObjectWrap(info), p_(payload_of<TrainerPayload>(info)) {
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), p_->bytes);
  }
  ~NativeTrainer() override { shut(); }
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeTrainer",
        {InstanceMethod<&NativeTrainer::accumulate>("accumulate"), InstanceMethod<&NativeTrainer::evaluate>("evaluate"),
         InstanceMethod<&NativeTrainer::gradient>("gradient"),
         InstanceMethod<&NativeTrainer::set_gradient>("setGradient"),
         InstanceMethod<&NativeTrainer::discard_gradient>("discardGradient"),
         InstanceMethod<&NativeTrainer::apply>("apply"), InstanceMethod<&NativeTrainer::state>("state"),
         InstanceMethod<&NativeTrainer::restore>("restore"), InstanceMethod<&NativeTrainer::project>("project"),
         InstanceMethod<&NativeTrainer::abort>("abort"), InstanceMethod<&NativeTrainer::close>("close")});
  }

 private:
  std::unique_ptr<TrainerPayload> p_;
  std::shared_ptr<Calls> calls_ = std::make_shared<Calls>();
  bool closed_ = false;

  /// work(trainer, stop) on the engine's thread; finish(env, its result) on JavaScript's gives the promise's value.
  template <class Work, class Into>
  Napi::Value run(Napi::Env env, Work work, Into into) {
    Engine& engine = p_->state->engine();
    if (closed_) fail(code::closed, "the trainer was closed");
    ModelState::Pending pending{
        Napi::Promise::Deferred::New(env), {}, Napi::Persistent(Value().As<Napi::Object>()), {}};
    const Napi::Promise promise = pending.deferred.Promise();
    ModelState* state = p_->state.get();  // outlives the engine
    const uint64_t number = state->begin(std::move(pending), env), call = ++calls_->newest;
    engine.compute(
        [work = std::move(work), into = std::move(into), state, number, call, &engine, calls = calls_,
         weak = p_->trainer](const MiniGpt4& model) {
          const std::shared_ptr<Trainer> trainer = weak.lock();
          if (!trainer) fail(code::closed, "the trainer was closed");
          const Trainer::Stop stop = [&] { return engine.closing() || call <= calls->aborted; };
          try {
            auto result = std::make_shared<decltype(work(*trainer, stop))>(work(*trainer, stop));
            model.check_files();
            state->post([=](Napi::Env e) { state->resolve(number, [&] { return Napi::Value(into(e, *result)); }); });
          } catch (const Error&) {
            if (engine.closing()) fail(code::closed, "the model was closed");
            model.check_files();  // a loss that is not finite may come of that
            throw;
          }
        },
        state->rejecter(number));
    return promise;
  }

  /// The same for work without a result.
  template <class Work>
  Napi::Value run(Napi::Env env, Work work) {
    return run(
        env,
        [work = std::move(work)](Trainer& trainer, const Trainer::Stop&) {
          work(trainer);
          return true;
        },
        [](Napi::Env e, bool) { return e.Undefined(); });
  }

  Napi::Value accumulate(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return run(
          info.Env(),
          [samples = to_samples(info[0])](Trainer& trainer, const Trainer::Stop& stop) {
            return trainer.accumulate(samples, stop);
          },
          from_loss);
    });
  }

  Napi::Value evaluate(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return run(
          info.Env(),
          [samples = to_samples(info[0])](Trainer& trainer, const Trainer::Stop& stop) {
            return trainer.evaluate(samples, stop);
          },
          from_loss);
    });
  }

  Napi::Value gradient(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return run(
          info.Env(), [](Trainer& trainer, const Trainer::Stop&) { return trainer.gradient(); },
          [](Napi::Env env, const GradientSum& gradient) {
            Napi::Object object = from_projection(env, gradient.sum);
            object.Set("targets", double(gradient.targets));
            return object;
          });
    });
  }

  Napi::Value set_gradient(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const Napi::Object o = to_object(info[0], "gradient");
      GradientSum sum{to_projection(o), to_integer(o.Get("targets"), "targets", 0, kMostSteps)};
      return run(info.Env(), [sum = std::move(sum)](Trainer& trainer) { trainer.set_gradient(sum); });
    });
  }

  Napi::Value discard_gradient(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return run(info.Env(), [](Trainer& trainer) { trainer.discard_gradient(); }); });
  }

  Napi::Value apply(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const Napi::Object o = to_object(info[0], "step");
      const double rate = to_number(o.Get("rate"), "rate");
      const double max_norm = has(o, "maxNorm") ? to_number(o.Get("maxNorm"), "maxNorm") : 0;
      return run(
          info.Env(), [=](Trainer& trainer, const Trainer::Stop&) { return trainer.apply(rate, max_norm); },
          [](Napi::Env env, const Trainer::Step& step) {
            Napi::Object object = Napi::Object::New(env);
            object.Set("gradientNorm", step.gradient_norm);
            object.Set("clipped", step.clipped);
            return object;
          });
    });
  }

  Napi::Value state(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return run(
          info.Env(), [](Trainer& trainer, const Trainer::Stop&) { return trainer.state(); },
          [](Napi::Env env, const TrainerState& s) {
            Napi::Object object = Napi::Object::New(env);
            object.Set("step", double(s.step));
            object.Set("values", from_projection(env, s.values));
            object.Set("firstMoment", from_projection(env, s.first_moment));
            object.Set("secondMoment", from_projection(env, s.second_moment));
            return object;
          });
    });
  }

  Napi::Value restore(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const Napi::Object o = to_object(info[0], "state");
      const auto part = [&](const char* key) { return to_projection(to_object(o.Get(key), key)); };
      TrainerState s{to_integer(o.Get("step"), "step", 0, kMostSteps), part("values"), part("firstMoment"),
                     part("secondMoment")};
      return run(info.Env(), [s = std::move(s)](Trainer& trainer) { trainer.restore(s); });
    });
  }

  Napi::Value project(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return run(
          info.Env(),
          [features = to_features(info[0])](Trainer& trainer, const Trainer::Stop&) {
            return std::make_shared<const ImageTokens>(trainer.project(features));
          },
          [](Napi::Env env, const Image& image) { return make_image(env, {image, {}}); });
    });
  }

  Napi::Value abort(const Napi::CallbackInfo& info) {
    calls_->aborted = calls_->newest.load();
    return info.Env().Undefined();
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    shut();
    return info.Env().Undefined();
  }
  void shut() {
    if (!closed_ && p_ && !p_->state->closed()) {
      calls_->aborted = calls_->newest.load();
      Engine& engine = p_->state->engine();
      engine.compute(
          [&engine, weak = p_->trainer](MiniGpt4&) {
            if (const std::shared_ptr<void> trainer = weak.lock()) engine.dismiss(trainer);
          },
          [](const Error&) {});
    }
    if (!closed_ && p_) Napi::MemoryManagement::AdjustExternalMemory(Env(), -p_->bytes);
    closed_ = true;
  }
};

/// Bytes in the backend's memory.
int64_t held(MiniGpt4& model) {
  int64_t bytes = 0;
  for (const Holding& holding : model.holdings()) bytes += int64_t(holding.bytes);
  return bytes;
}

}  // namespace

Napi::Value open_trainer(const Napi::CallbackInfo& call, const std::shared_ptr<ModelState>& state,
                         const Napi::Object& model) {
  Napi::Env env = call.Env();
  Engine& engine = state->engine();
  const TrainerOptions options = to_options(call[0]);
  ModelState::Pending pending{Napi::Promise::Deferred::New(env), {}, Napi::Persistent(model), {}};
  const Napi::Promise promise = pending.deferred.Promise();
  const uint64_t number = state->begin(std::move(pending), env);
  engine.compute(
      [=, &engine, state = state.get()](MiniGpt4& loaded) {
        const int64_t before = held(loaded);
        const auto trainer = std::make_shared<Trainer>(loaded, options);
        const int64_t bytes = held(loaded) - before;
        engine.house(trainer);
        state->post([=, weak = std::weak_ptr<Trainer>(trainer)](Napi::Env e) {
          const ModelState::Pending* open = state->find(number);
          if (!open) return;
          const Napi::Object owner = open->keep.Value();
          state->resolve(number, [&]() -> Napi::Value {
            auto payload = std::make_unique<TrainerPayload>(
                TrainerPayload{state->shared_from_this(), weak, Napi::Persistent(owner), bytes});
            return make(e.GetInstanceData<AddonData>()->trainer, std::move(payload));
          });
        });
      },
      state->rejecter(number));
  return promise;
}

void define_trainer(Napi::Env env, AddonData& data) { data.trainer = Napi::Persistent(NativeTrainer::define(env)); }

}  // namespace minigpt4::addon
