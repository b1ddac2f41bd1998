// Sums over the processes of a run: NativeCollective. Its calls block, so each object has a thread of its own; libuv's
// pool stays free for files and pictures.
#include "collective/collective.h"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "addon/classes.h"
#include "addon/errors.h"
#include "addon/task.h"
#include "addon/values.h"
#include "core/binary_folder.h"

namespace minigpt4::addon {

namespace {

constexpr int64_t kLongest = int64_t(1) << 40;  // milliseconds

/// The collective, its thread, and the way back to the JavaScript thread, where everything here is called but for run()
/// and post().
class CollectiveState : public std::enable_shared_from_this<CollectiveState> {
 public:
  static std::shared_ptr<CollectiveState> create(Napi::Env env, std::unique_ptr<Collective> collective) {
    std::shared_ptr<CollectiveState> state(new CollectiveState());
    state->env_ = env;
    state->collective_ = std::move(collective);
    state->post_ = Post::New(env, "minigpt4 collective", 0, 1);
    state->post_.Unref(env);
    // made after the function, so it runs before the function's own clean-up: the thread is gone by then
    napi_add_env_cleanup_hook(env, on_environment_exit, state.get());
    state->thread_ = std::thread([raw = state.get()] { raw->run(); });
    return state;
  }

  ~CollectiveState() { end(); }

  Collective& collective() {
    if (!collective_) fail(code::closed, "this process has left its group");
    return *collective_;
  }

  /// A promise of what `work` makes on the thread, after all work that was submitted before.
  Napi::Promise submit(Napi::Env env, std::function<Finish()> work) {
    auto job =
        std::make_unique<Job>(Job{Napi::Promise::Deferred::New(env), shared_from_this(), std::move(work), {}, {}});
    Napi::Promise promise = job->deferred.Promise();
    if (pending_++ == 0) post_.Ref(env);
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(job));
    }
    wake_.notify_one();
    return promise;
  }

  /// Ends what runs and closes the connections. Idempotent.
  void end() {
    stop();
    collective_.reset();
    if (released_) return;
    released_ = true;
    napi_remove_env_cleanup_hook(env_, on_environment_exit, this);
    post_.Release();
  }

 private:
  struct Job {
    Napi::Promise::Deferred deferred;
    std::shared_ptr<CollectiveState> state;
    std::function<Finish()> work;
    Finish finish;
    std::optional<Error> error;
  };
  static void deliver(Napi::Env env, Napi::Function, std::nullptr_t*, Job* job) {
    const std::unique_ptr<Job> owned(job);
    if (!env) return;  // the environment is going
    CollectiveState& state = *owned->state;
    if (--state.pending_ == 0 && !state.released_) state.post_.Unref(env);
    try {
      if (owned->error) {
        owned->deferred.Reject(js_error(env, *owned->error).Value());
      } else {
        owned->deferred.Resolve(owned->finish(env));
      }
    } catch (const Napi::Error&) {
      // only an environment that is being terminated refuses this; nobody is left to tell
    }
  }
  using Post = Napi::TypedThreadSafeFunction<std::nullptr_t, Job, deliver>;

  CollectiveState() = default;
  napi_env env_ = nullptr;
  std::unique_ptr<Collective> collective_;
  std::thread thread_;
  Post post_;
  bool released_ = false;
  size_t pending_ = 0;  // promises that are open

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false, running_ = false;
  std::deque<std::unique_ptr<Job>> queue_;
  std::vector<std::unique_ptr<Job>> refused_;

  void run() {
    for (;;) {
      std::unique_ptr<Job> job;
      {
        std::unique_lock lock(mutex_);
        running_ = false;
        wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        job = std::move(queue_.front());
        queue_.pop_front();
        running_ = true;
      }
      try {
        job->finish = job->work();
      } catch (...) {
        job->error = as_error(std::current_exception());
      }
      // Once it is sent it belongs to deliver(). It is refused only where the environment is going; then its state must
      // not end here, on the thread that it would wait for.
      Job* const sent = job.release();
      if (post_.NonBlockingCall(sent) != napi_ok) {
        const std::lock_guard lock(mutex_);
        refused_.emplace_back(sent);
      }
    }
  }

  /// Ends the running call and those that wait, and the thread with them.
  void stop() {
    if (!thread_.joinable()) return;
    bool busy;
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      busy = running_ || !queue_.empty();
    }
    // an idle group is closed softly: what it has sent still arrives
    if (busy) collective_->abort();
    wake_.notify_one();
    thread_.join();
  }

  static void on_environment_exit(void* data) {
    auto* state = static_cast<CollectiveState*>(data);
    state->released_ = true;  // the environment takes the function itself
    state->stop();
    state->collective_.reset();
    const auto refused = std::move(state->refused_);  // may hold the last owners of `state`
  }
};

class NativeCollective : public Napi::ObjectWrap<NativeCollective> {
 public:
  explicit NativeCollective(const Napi::CallbackInfo& info)
      : ObjectWrap(info), state_(CollectiveState::create(info.Env(), payload_of<Collective>(info))) {}
  ~NativeCollective() override { state_->end(); }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeCollective",
        {InstanceMethod<&NativeCollective::address>("address"), InstanceMethod<&NativeCollective::connect>("connect"),
         InstanceMethod<&NativeCollective::sum>("sum"), InstanceMethod<&NativeCollective::sum_numbers>("sumNumbers"),
         InstanceMethod<&NativeCollective::close>("close")});
  }

 private:
  std::shared_ptr<CollectiveState> state_;

  Napi::Value address(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const std::string bytes = state_->collective().address();
      return from_bytes(info.Env(), bytes.data(), bytes.size());
    });
  }

  Napi::Value connect(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const Napi::Array array = to_array(info[0], "addresses");
      std::vector<std::string> addresses;
      for (uint32_t i = 0; i < array.Length(); ++i) {
        const Bytes bytes = to_bytes(array.Get(i), "an address");
        addresses.emplace_back(reinterpret_cast<const char*>(bytes.data), bytes.size);
      }
      Collective& collective = state_->collective();
      return state_->submit(info.Env(), [&collective, addresses = std::move(addresses)]() -> Finish {
        collective.connect(addresses);
        return [](Napi::Env env) { return env.Undefined(); };
      });
    });
  }

  template <class T, class Give>
  Napi::Value submit_sum(Napi::Env env, std::vector<T> values, Give give) {
    Collective& collective = state_->collective();
    return state_->submit(env, [&collective, give, values = std::move(values)]() mutable -> Finish {
      collective.sum(std::span(values));
      return [give, sums = std::move(values)](Napi::Env to) -> Napi::Value { return give(to, sums); };
    });
  }

  Napi::Value sum(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return submit_sum(info.Env(), to_floats(info[0], "values"), from_floats); });
  }

  Napi::Value sum_numbers(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const Napi::Array array = to_array(info[0], "numbers");
      std::vector<double> values;
      for (uint32_t i = 0; i < array.Length(); ++i) values.push_back(to_number(array.Get(i), "a number"));
      return submit_sum(info.Env(), std::move(values), [](Napi::Env env, const std::vector<double>& sums) {
        Napi::Array numbers = Napi::Array::New(env, sums.size());
        for (size_t i = 0; i < sums.size(); ++i) numbers.Set(uint32_t(i), sums[i]);
        return numbers;
      });
    });
  }

  void close(const Napi::CallbackInfo&) { state_->end(); }
};

Napi::Value open_collective(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Napi::Object object = to_object(info[0], "options");
    constexpr int64_t most_ranks = 1 << 20;
    Collective::Options options;
    options.size = int(to_integer(object.Get("size"), "size", 1, most_ranks));
    options.rank = int(to_integer(object.Get("rank"), "rank", 0, options.size - 1));
    options.host = to_string(object.Get("host"), "host");
    if (has(object, "connectTimeout")) {
      options.connect_timeout_ms = to_integer(object.Get("connectTimeout"), "connectTimeout", 1, kLongest);
    }
    if (has(object, "sumTimeout"))
      options.sum_timeout_ms = to_integer(object.Get("sumTimeout"), "sumTimeout", 1, kLongest);
    const std::string folder = has(object, "folder") ? to_string(object.Get("folder"), "folder") : binary_folder();
    return make(env.GetInstanceData<AddonData>()->collective, std::make_unique<Collective>(folder, options));
  });
}

}  // namespace

void define_collective(Napi::Env env, Napi::Object exports, AddonData& data) {
  data.collective = Napi::Persistent(NativeCollective::define(env));
  exports.Set("openCollective", Napi::Function::New(env, open_collective, "openCollective"));
}

}  // namespace minigpt4::addon
