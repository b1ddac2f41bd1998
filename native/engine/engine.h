// One thread a loaded model: it takes requests from a queue, runs prefill chunks and one decode step for everybody, and
// hands out text as it becomes certain.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/batch.h"
#include "engine/generation.h"
#include "engine/next_tokens.h"
#include "models/placement.h"
#include "text/tokenizer.h"

namespace minigpt4 {

struct EngineOptions {
  int context_length = 0;  // positions of one sequence at most; 0: the model's own, at most 4096
  int cache_length = 0;    // positions of all sequences together in the cache; 0: context_length
  Type kv_type = Type::F16;
  int max_rows = 128;      // of one forward pass: a prefill chunk, after which others get their turn
  int max_sequences = 32;  // that are computed together; more wait
};

/// A conversation as the engine knows it. Callers hold it and pass it back.
struct Conversation {
  explicit Conversation(KvPagePool& pool) : sequence(pool) {}
  Sequence sequence;                   // the engine's thread only
  std::unique_ptr<Generation> answer;  // the engine's thread only; null when idle
  uint64_t last_used = 0;              // the engine's thread only
  bool closed = false;                 // the engine's thread only
  std::mutex mutex;                    // guards newest
  AbortToken newest;                   // of the answer asked for last; null before the first
};
using ConversationRef = std::shared_ptr<Conversation>;

/// What an engine with these options keeps on the backend beside the model's weights. Errors: ERR_ARGUMENT (lengths out of
/// range).
CacheWishes cache_of(const EngineOptions& options, const LlamaConfig& llama);

class Engine {
 public:
  /// Errors: ERR_ARGUMENT (lengths out of range), ERR_SHAPE (a tokenizer of another size than the model's), ERR_OUT_OF_MEMORY.
  Engine(std::unique_ptr<MiniGpt4> model, std::unique_ptr<Tokenizer> tokenizer, const EngineOptions& options);
  ~Engine();

  const MiniGpt4& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int context_length() const { return context_; }
  std::string device() const { return model_->describe(); }
  std::vector<Holding> holdings() const { return model_->holdings(); }

  // Any thread may call what follows. Results come through callbacks on the engine's thread; after close() everything
  // is refused with ERR_CLOSED.

  ConversationRef open();
  /// Answers `parts` (the whole conversation so far). Errors come through on_error: ERR_CONTEXT_FULL, ERR_ABORTED,
  /// ERR_CLOSED, ERR_ARGUMENT (a generation is running in this conversation, ids outside the vocabulary), …
  void generate(const ConversationRef& conversation, std::vector<PromptPart> parts, GenerateOptions options,
                GenerateCallbacks callbacks);
  /// Ends the answer asked for last, running or waiting, with ERR_ABORTED: after the token that is being computed, in a
  /// prompt after the layer.
  void abort(const ConversationRef& conversation);
  /// Ends it with ERR_CLOSED and returns its pages.
  void close(const ConversationRef& conversation);
  /// Milliseconds of a pass that encoded pictures; the ViT's among them are known on the host alone.
  struct EncodeTimes {
    double all = 0;
    std::optional<double> vit;
  };
  /// A picture to be encoded.
  struct Picture {
    std::vector<float> pixels;                        // [3, S, S], normalised
    bool projected = true;                            // false: as it is before the projection
    AbortToken abort;                                 // set: nobody wants it any more; may be null
    std::function<void(Image, EncodeTimes)> on_done;  // the times of the pass that it was in
    std::function<void(const Error&)> refuse;
    // the engine's own:
    uint64_t arrived = 0;
    bool alone = false;  // it was in a pass that failed
  };
  /// Pictures that wait go through one pass together, the model's max_images() at most, fewer while answers are read;
  /// passes take turns with the answers' steps. Errors: ERR_ABORTED, ERR_CLOSED, ERR_OUT_OF_MEMORY, … of this picture alone.
  void encode(Picture picture);
  /// The stages of one picture or prompt, in order, in host memory.
  struct Stage {
    std::string name;
    std::vector<float> values;
    int64_t rows = 0, cols = 0;
  };
  /// Errors: ERR_CLOSED, ERR_ARGUMENT (no vision side), ERR_CONTEXT_FULL (a prompt beyond the context), ERR_OUT_OF_MEMORY.
  void trace_image(std::vector<float> pixels, std::function<void(std::vector<Stage>)> on_done,
                   std::function<void(const Error&)> on_error);
  void trace_prompt(std::vector<PromptPart> parts, std::function<void(std::vector<Stage>)> on_done,
                    std::function<void(const Error&)> on_error);
  /// Other work with the model, which takes turns with the answers' steps as pictures do. What it throws goes to on_error.
  void compute(std::function<void(MiniGpt4&)> work, std::function<void(const Error&)> on_error);
  /// True once close() was called: long work should end.
  bool closing() const { return closing_; }
  /// In such work: something in the model's memory that is to live until it is dismissed, or the engine goes.
  void house(std::shared_ptr<void> guest) { guests_.push_back(std::move(guest)); }
  void dismiss(const std::shared_ptr<void>& guest) { std::erase(guests_, guest); }
  /// Ends everything with ERR_CLOSED and waits for the thread. Harmless when called again.
  void close();

 private:
  struct Job {
    std::function<void()> run;
    std::function<void(const Error&)> refuse;
    uint64_t arrived = 0;
  };
  using Jobs = std::deque<Job>;

  std::unique_ptr<MiniGpt4> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  EngineOptions options_;
  int context_;
  KvPagePool pool_;
  BatchRunner batch_;
  NextTokens next_;

  size_t longest_piece_;  // bytes of the vocabulary's longest

  std::mutex mutex_;  // guards jobs_, heavy_, pictures_, arrivals_ and the setting of closing_
  std::condition_variable wake_;
  Jobs jobs_;                    // that take no time: all are done before the next step
  Jobs heavy_;                   // traces and other long work: one a step, or pictures, as they came
  std::list<Picture> pictures_;  // that wait; a list moves them about without memory
  uint64_t arrivals_ = 0;
  std::atomic<bool> closing_{false};
  std::mutex join_mutex_;
  std::thread thread_;

  // the engine's thread only
  std::vector<ConversationRef> conversations_;  // open ones
  std::deque<ConversationRef> waiting_;         // with an answer that has not begun
  std::vector<ConversationRef> active_;         // with an answer that has
  std::list<Picture> pass_;                     // pictures of the pass that is under way
  double picture_ms_ = 0;                       // of each picture in the last pass; 0 before the first
  uint64_t clock_ = 0;
  std::vector<std::shared_ptr<void>> guests_;  // after the model, so that they go before it

  template <class Queue, class Item>
  void submit(Queue& queue, Item item);
  void loop();
  void long_job() noexcept;
  void take_pictures() noexcept;
  void encode_pictures() noexcept;
  void encode_again(const Error& error) noexcept;
  void refuse_all();
  static void run(Job& job) noexcept;
  void begin_answer(const ConversationRef& conversation, const std::vector<PromptPart>& parts,
                    const GenerateOptions& options, const GenerateCallbacks& callbacks, const AbortToken& abort,
                    Generation::Clock::time_point requested);
  std::vector<Stage> trace(const std::vector<PromptPart>& parts);
  void step();
  void drop_aborted();
  void admit();
  void share_beginning(Conversation& conversation);
  void make_room(Sequence& sequence, int positions);
  void guess(std::vector<BatchPart>& parts, const std::vector<ConversationRef>& owners);
  /// An answer whose next token is due when a pass is through: row `row` of its result has the logits, the rows behind it
  /// those of the tokens after each guess, should that be what is drawn.
  struct Due {
    ConversationRef owner;
    int32_t row;
    std::vector<int32_t> guesses;
    std::vector<uint32_t*> places;  // where each of its draws finds the ids generated until then
  };
  static std::vector<Due> due_of(const std::vector<BatchPart>& parts, const std::vector<ConversationRef>& owners);
  int upload_draws(std::vector<Due>& due);
  void hand_out(const std::vector<Due>& due);
  void take(const Due& due, const int32_t* ids);
  void end(ConversationRef conversation, const Error* error) noexcept;
  Prompt assemble(const std::vector<PromptPart>& parts) const;
  static Trace recorder(std::vector<Stage>& stages);
};

}  // namespace minigpt4
