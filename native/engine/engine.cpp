#include "engine/engine.h"

#include <algorithm>

namespace minigpt4 {
namespace {

// Logits are fetched for so many rows at a time: a vocabulary of 32,000 floats is 128 KB a row.
constexpr int kLogitRows = 8;
// Longer contexts than this must be asked for: a 7B model's cache takes 0.5 MiB a position.
constexpr int kDefaultContext = 4096;

int context_of(const LlamaConfig& llama, int asked) {
  if (asked == 0) return std::min(llama.context, kDefaultContext);
  if (asked < kPagePositions || asked > llama.context) {
    fail(code::argument, "context length ", asked, ": expected ", kPagePositions, " to ", llama.context, ", the model's own");
  }
  return asked;
}

int cache_pages(int asked, int context) {
  if (asked != 0 && asked < context) fail(code::argument, "cache length ", asked, ": expected at least the context length ", context);
  return (std::max(asked, context) + kPagePositions - 1) / kPagePositions;
}

const Error kClosed(code::closed, "the model or the conversation was closed");

}  // namespace

Engine::Engine(std::unique_ptr<MiniGpt4> model, std::unique_ptr<Tokenizer> tokenizer, const EngineOptions& options)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      context_(context_of(model_->llama(), options.context_length)),
      pool_(cache_pages(options.cache_length, context_)),
      cache_(model_->ops(), model_->llama(), options.kv_type, pool_.pages()),
      llama_(model_->ops(), model_->llama(), model_->llama_weights(), options.max_rows, kLogitRows),
      batch_(*model_, llama_, cache_, context_, options.max_sequences),
      logits_(model_->ops(), int64_t(kLogitRows) * model_->llama().vocab),
      host_logits_(size_t(kLogitRows) * size_t(model_->llama().vocab)) {
  if (tokenizer_->size() > model_->llama().vocab) {
    fail(code::shape, "the tokenizer has ", tokenizer_->size(), " pieces, but the language model's vocabulary ",
         model_->llama().vocab);
  }
  thread_ = std::thread([this] { loop(); });
}

Engine::~Engine() { close(); }

// ---- any thread

void Engine::submit(std::function<void()> run, std::function<void(const Error&)> refuse) {
  {
    std::lock_guard lock(mutex_);
    if (!closing_) {
      jobs_.push_back({std::move(run), std::move(refuse)});
      wake_.notify_one();
      return;
    }
  }
  refuse(kClosed);
}

ConversationRef Engine::open() {
  auto conversation = std::make_shared<Conversation>(pool_);
  submit([this, conversation] { conversations_.push_back(conversation); }, [](const Error&) {});
  return conversation;
}

void Engine::generate(const ConversationRef& conversation, std::vector<PromptPart> parts, GenerateOptions options,
                      GenerateCallbacks callbacks) {
  const auto requested = Generation::Clock::now();
  auto refuse = callbacks.on_error;
  conversation->abort = false;
  submit(
      [=, this, parts = std::move(parts), callbacks = std::move(callbacks)] {
        if (conversation->closed) throw kClosed;
        if (conversation->answer) fail(code::argument, "this conversation is answering already: wait for that answer or abort it");
        Prompt prompt = assemble(parts);
        if (int(prompt.size()) > context_) {
          fail(code::context_full, "the prompt takes ", prompt.size(), " positions, but the context has ", context_,
               ": shorten it, or load the model with a longer context");
        }
        conversation->answer = std::make_unique<Generation>(*tokenizer_, conversation->sequence, std::move(prompt), options,
                                                            callbacks, requested);
        waiting_.push_back(conversation);
      },
      std::move(refuse));
}

void Engine::abort(const ConversationRef& conversation) {
  conversation->abort = true;
  std::lock_guard lock(mutex_);
  wake_.notify_one();
}

void Engine::close(const ConversationRef& conversation) {
  submit(
      [this, conversation] {
        conversation->closed = true;
        if (conversation->answer) end(conversation, &kClosed);
        conversation->sequence.truncate(0);
        std::erase(conversations_, conversation);
      },
      [](const Error&) {});
}

void Engine::encode_image(std::vector<float> pixels, std::function<void(Image, double)> on_done,
                          std::function<void(const Error&)> on_error) {
  submit(
      [this, pixels = std::move(pixels), on_done = std::move(on_done)] {
        const auto began = Generation::Clock::now();
        auto image = std::make_shared<const ImageTokens>(model_->encode_image(pixels.data()));
        on_done(std::move(image), std::chrono::duration<double, std::milli>(Generation::Clock::now() - began).count());
      },
      std::move(on_error));
}

void Engine::trace_image(std::vector<float> pixels, std::function<void(std::vector<Stage>)> on_done,
                         std::function<void(const Error&)> on_error) {
  submit(
      [this, pixels = std::move(pixels), on_done = std::move(on_done)] {
        std::vector<Stage> stages;
        model_->encode_image(pixels.data(), recorder(stages));
        on_done(std::move(stages));
      },
      std::move(on_error));
}

void Engine::trace_prompt(std::vector<PromptPart> parts, std::function<void(std::vector<Stage>)> on_done,
                          std::function<void(const Error&)> on_error) {
  submit(
      [this, parts = std::move(parts), on_done = std::move(on_done)] {
        const Prompt prompt = assemble(parts);
        if (int(prompt.size()) > context_) fail(code::context_full, "the prompt takes ", prompt.size(), " positions of ", context_);
        std::vector<Stage> stages;
        const Trace record = recorder(stages);
        Sequence sequence(pool_);
        while (sequence.length() < int(prompt.size())) {
          const int from = sequence.length(), n = std::min(llama_.max_rows(), int(prompt.size()) - from);
          make_room(sequence, n);
          batch_.run({{&sequence, Prompt(prompt.begin() + from, prompt.begin() + from + n)}}, record);
          for (int row = 0; row < n; row += kLogitRows) {
            std::vector<int32_t> rows;
            for (int i = row; i < std::min(n, row + kLogitRows); ++i) rows.push_back(i);
            llama_.logits(logits_, batch_.x(), rows.data(), int(rows.size()));
            record("logits", logits_, int64_t(rows.size()), model_->llama().vocab);
          }
        }
        on_done(std::move(stages));
      },
      std::move(on_error));
}

void Engine::close() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    wake_.notify_one();
  }
  std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

// ---- the engine's thread

void Engine::loop() {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return closing_ || !jobs_.empty() || !active_.empty() || !waiting_.empty(); });
      if (closing_) break;
      if (!jobs_.empty()) {
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
    }
    // one job, then one step: a long queue of pictures does not hold up those who are reading their answers
    if (job.run) {
      try {
        job.run();
      } catch (const Error& error) {
        job.refuse(error);
      } catch (const std::bad_alloc&) {
        job.refuse(Error(code::out_of_memory, "memory ran out while a request was prepared"));
      } catch (const std::exception& error) {
        job.refuse(Error(code::internal, error.what()));
      }
    }
    if (!active_.empty() || !waiting_.empty()) step();
  }
  // closing: everybody is told
  std::deque<Job> left;
  {
    std::lock_guard lock(mutex_);
    left.swap(jobs_);
  }
  for (const ConversationRef& conversation : std::vector<ConversationRef>(conversations_)) {
    conversation->closed = true;
    if (conversation->answer) end(conversation, &kClosed);
    conversation->sequence.truncate(0);
  }
  conversations_.clear();
  for (Job& job : left) job.refuse(kClosed);
}

void Engine::step() {
  std::vector<BatchPart> parts;
  std::vector<ConversationRef> owners;
  try {
    drop_aborted();
    admit();
    if (active_.empty()) return;
    // those who decode first, one row each; what is left of the batch goes to prompts
    int rows = 0;
    for (const bool decoding : {true, false}) {
      for (const ConversationRef& conversation : active_) {
        Generation& answer = *conversation->answer;
        const bool decodes = conversation->sequence.length() >= int(answer.prompt().size());
        if (decodes != decoding || rows >= llama_.max_rows()) continue;
        Prompt next = answer.next_rows(llama_.max_rows() - rows);
        rows += int(next.size());
        make_room(conversation->sequence, int(next.size()));
        conversation->last_used = ++clock_;
        parts.push_back({&conversation->sequence, std::move(next)});
        owners.push_back(conversation);
      }
    }
    batch_.run(parts);
    draw(parts, owners);
  } catch (const std::exception& exception) {
    // what went wrong cannot be laid at one conversation's door: all that took part end with it, the engine goes on
    const auto* known = dynamic_cast<const Error*>(&exception);
    const Error error = known ? *known : Error(code::internal, exception.what());
    for (const ConversationRef& conversation : std::vector<ConversationRef>(active_)) {
      conversation->sequence.truncate(0);
      end(conversation, &error);
    }
  }
}

void Engine::drop_aborted() {
  const Error aborted(code::aborted, "the answer was aborted");
  std::vector<ConversationRef> all(active_);
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  for (const ConversationRef& conversation : all) {
    if (conversation->abort) end(conversation, &aborted);
  }
}

/// Lets waiting answers begin while the cache can hold everything that all active ones may still need.
void Engine::admit() {
  while (!waiting_.empty() && int(active_.size()) < options_.max_sequences) {
    int promised = 0;
    for (const ConversationRef& conversation : active_) promised += pages_for(conversation->answer->most_positions(context_));
    const ConversationRef next = waiting_.front();
    if (promised + pages_for(next->answer->most_positions(context_)) > pool_.pages()) return;
    waiting_.pop_front();
    share_beginning(*next);
    next->answer->begin();
    active_.push_back(next);
  }
}

/// Where another conversation begins as this one's prompt does, and holds more of it, its pages serve both.
void Engine::share_beginning(Conversation& conversation) {
  const Prompt& prompt = conversation.answer->prompt();
  int best = common_prefix(conversation.sequence.slots(), prompt);
  const Conversation* from = nullptr;
  for (const ConversationRef& other : conversations_) {
    if (other.get() == &conversation) continue;
    const int shared = common_prefix(other->sequence.slots(), prompt) / kPagePositions * kPagePositions;
    if (shared > best) {
      best = shared;
      from = other.get();
    }
  }
  if (!from) return;
  conversation.sequence.truncate(0);
  conversation.sequence.share_prefix(from->sequence, best);
}

/// Reserves positions, taking them from the conversations that have been idle longest if need be.
void Engine::make_room(Sequence& sequence, int positions) {
  std::vector<Sequence::Copy> copies;
  while (!sequence.reserve(positions, copies)) {
    Conversation* oldest = nullptr;
    for (const ConversationRef& other : conversations_) {
      const bool begun = std::find(active_.begin(), active_.end(), other) != active_.end();
      if (begun || other->sequence.length() == 0 || &other->sequence == &sequence) continue;
      if (!oldest || other->last_used < oldest->last_used) oldest = other.get();
    }
    if (!oldest) {
      fail(code::context_full, "the cache of ", pool_.pages() * kPagePositions,
           " positions is full: load the model with a larger cache length");
    }
    oldest->sequence.truncate(0);
  }
  for (const Sequence::Copy& copy : copies) {
    for (int i = 0; i < cache_.layers(); ++i) model_->ops().kv_copy_page(cache_.layer(i), copy.to, copy.from);
  }
}

/// Logits and the next token of everybody whose rows are complete.
void Engine::draw(const std::vector<BatchPart>& parts, const std::vector<ConversationRef>& owners) {
  const int vocab = model_->llama().vocab;
  std::vector<int32_t> rows;
  std::vector<ConversationRef> due;
  int32_t last = -1;
  for (size_t i = 0; i < parts.size(); ++i) {
    last += int32_t(parts[i].rows.size());
    if (owners[i]->answer->logits_due(0)) {
      rows.push_back(last);
      due.push_back(owners[i]);
    }
  }
  for (size_t at = 0; at < rows.size(); at += kLogitRows) {
    const int n = int(std::min<size_t>(kLogitRows, rows.size() - at));
    llama_.logits(logits_, batch_.x(), rows.data() + at, n);
    model_->ops().download(host_logits_.data(), logits_, size_t(n) * size_t(vocab) * sizeof(float));
    for (int i = 0; i < n; ++i) {
      const ConversationRef& conversation = due[at + size_t(i)];
      try {
        if (!conversation->answer->accept(host_logits_.data() + size_t(i) * size_t(vocab), tokenizer_->size(), context_)) {
          end(conversation, nullptr);
        }
      } catch (const Error& error) {
        end(conversation, &error);
      }
    }
  }
}

/// Takes the answer off the lists and tells its caller.
void Engine::end(const ConversationRef& conversation, const Error* error) {
  std::erase(active_, conversation);
  std::erase(waiting_, conversation);
  // the answer goes before its caller hears of it, so that the caller may ask again at once
  const std::unique_ptr<Generation> answer = std::move(conversation->answer);
  const GenerateCallbacks& callbacks = answer->callbacks();
  if (error) {
    if (callbacks.on_error) callbacks.on_error(*error);
  } else if (callbacks.on_done) {
    callbacks.on_done(std::move(answer->result()));
  }
}

Prompt Engine::assemble(const std::vector<PromptPart>& parts) const {
  Prompt prompt;
  for (const PromptPart& part : parts) {
    if (const auto* text = std::get_if<std::string>(&part)) {
      append_tokens(prompt, tokenizer_->encode(*text));
    } else if (const auto* id = std::get_if<int32_t>(&part)) {
      append_tokens(prompt, {*id});
    } else if (const auto* ids = std::get_if<std::vector<int32_t>>(&part)) {
      append_tokens(prompt, *ids);
    } else {
      const Image& image = std::get<Image>(part);
      if (image->width != model_->llama().width) {
        fail(code::shape, "the picture was encoded for a language model ", image->width, " wide, this one is ",
             model_->llama().width, " wide");
      }
      append_image(prompt, image);
    }
  }
  for (const Slot& slot : prompt) {
    if (!slot.image && (slot.id < 0 || slot.id >= model_->llama().vocab)) {
      fail(code::argument, "token id ", slot.id, " is outside the vocabulary of ", model_->llama().vocab, " tokens");
    }
  }
  return prompt;
}

int Engine::pages_for(int positions) const { return (positions + kPagePositions - 1) / kPagePositions; }

/// Collects stages in host memory; chunks of one stage are put end to end.
Trace Engine::recorder(std::vector<Stage>& stages) {
  return [this, &stages](const std::string& name, const float* rows, int64_t T, int64_t C) {
    auto stage = std::find_if(stages.begin(), stages.end(), [&](const Stage& s) { return s.name == name; });
    if (stage == stages.end()) {
      stages.push_back({name, {}, 0, C});
      stage = stages.end() - 1;
    }
    const size_t before = stage->values.size();
    stage->values.resize(before + size_t(T) * size_t(C));
    stage->rows += T;
    model_->ops().download(stage->values.data() + before, rows, size_t(T) * size_t(C) * sizeof(float));
  };
}

}  // namespace minigpt4
