#include "engine/engine.h"

#include <algorithm>

namespace minigpt4 {
namespace {

// Longer contexts than this must be asked for: a 7B model's cache takes 0.5 MiB a position.
constexpr int kDefaultContext = 4096;

// Milliseconds for which pictures may hold up the next token of those who read answers; one picture may take longer.
constexpr double kLongestPause = 50;

int context_of(const LlamaConfig& llama, int asked) {
  if (asked == 0) return std::min(llama.context, kDefaultContext);
  if (asked < kPagePositions || asked > llama.context) {
    fail(code::argument, "context length ", asked, ": expected ", kPagePositions, " to ", llama.context,
         ", the model's own");
  }
  return asked;
}

int cache_pages(int asked, int context) {
  if (asked != 0 && asked < context)
    fail(code::argument, "cache length ", asked, ": expected at least the context length ", context);
  return pages_for(std::max(asked, context));
}

const Error kClosed(code::closed, "the model or the conversation was closed");
const Error kAborted(code::aborted, "the answer was aborted");
const Error kUnwanted(code::aborted, "the picture was aborted");

bool is_unwanted(const Engine::Picture& picture) { return picture.abort && *picture.abort; }

}  // namespace

CacheWishes cache_of(const EngineOptions& options, const LlamaConfig& llama) {
  const int pages = cache_pages(options.cache_length, context_of(llama, options.context_length));
  return {pages, options.kv_type, options.max_rows, kLogitRows, options.max_sequences + kMostGuesses};
}

Engine::Engine(std::unique_ptr<MiniGpt4> model, std::unique_ptr<Tokenizer> tokenizer, const EngineOptions& options)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      context_(context_of(model_->llama(), options.context_length)),
      pool_(cache_pages(options.cache_length, context_)),
      batch_(*model_, {options.max_rows, options.max_sequences, context_, pool_.pages(), options.kv_type}, kLogitRows),
      next_(batch_.last(), model_->llama().vocab, options.max_sequences, tokenizer_->size()) {
  if (tokenizer_->size() > model_->llama().vocab) {
    fail(code::shape, "the tokenizer has ", tokenizer_->size(), " pieces, but the language model's vocabulary ",
         model_->llama().vocab);
  }
  longest_piece_ = 1;
  for (const std::string& piece : tokenizer_->vocabulary().pieces)
    longest_piece_ = std::max(longest_piece_, piece.size());
  thread_ = std::thread([this] { loop(); });
}

Engine::~Engine() { close(); }

// ---- any thread

template <class Queue, class Item>
void Engine::submit(Queue& queue, Item item) {
  {
    std::lock_guard lock(mutex_);
    if (!closing_) {
      item.arrived = ++arrivals_;
      queue.push_back(std::move(item));
      wake_.notify_one();
      return;
    }
  }
  item.refuse(kClosed);
}

ConversationRef Engine::open() {
  auto conversation = std::make_shared<Conversation>(pool_);
  submit(jobs_, Job{[this, conversation] { conversations_.push_back(conversation); }, [](const Error&) {}});
  return conversation;
}

void Engine::generate(const ConversationRef& conversation, std::vector<PromptPart> parts, GenerateOptions options,
                      GenerateCallbacks callbacks) {
  const auto requested = Generation::Clock::now();
  const auto abort = std::make_shared<std::atomic<bool>>(false);
  {
    std::lock_guard lock(conversation->mutex);
    conversation->newest = abort;
  }
  auto refuse = callbacks.on_error;
  submit(jobs_,
         Job{[=, this, parts = std::move(parts), options = std::move(options), callbacks = std::move(callbacks)] {
               begin_answer(conversation, parts, options, callbacks, abort, requested);
             },
             std::move(refuse)});
}

void Engine::abort(const ConversationRef& conversation) {
  {
    std::lock_guard lock(conversation->mutex);
    if (conversation->newest) *conversation->newest = true;
  }
  std::lock_guard lock(mutex_);
  wake_.notify_one();
}

void Engine::close(const ConversationRef& conversation) {
  submit(jobs_, Job{[this, conversation] {
                      conversation->closed = true;
                      if (conversation->answer) end(conversation, &kClosed);
                      conversation->sequence.truncate(0);
                      std::erase(conversations_, conversation);
                    },
                    [](const Error&) {}});
  abort(conversation);  // a step that is under way stops; the job above says why before the abort is looked at
}

void Engine::encode(Picture picture) { submit(pictures_, std::move(picture)); }

void Engine::trace_image(std::vector<float> pixels, std::function<void(std::vector<Stage>)> on_done,
                         std::function<void(const Error&)> on_error) {
  submit(heavy_, Job{[this, pixels = std::move(pixels), on_done = std::move(on_done)] {
                       std::vector<Stage> stages;
                       const MiniGpt4::Picture picture{pixels.data()};
                       model_->encode({&picture, 1}, recorder(stages));
                       on_done(std::move(stages));
                     },
                     std::move(on_error)});
}

void Engine::trace_prompt(std::vector<PromptPart> parts, std::function<void(std::vector<Stage>)> on_done,
                          std::function<void(const Error&)> on_error) {
  submit(heavy_, Job{[this, parts = std::move(parts), on_done = std::move(on_done)] { on_done(trace(parts)); },
                     std::move(on_error)});
}

void Engine::compute(std::function<void(MiniGpt4&)> work, std::function<void(const Error&)> on_error) {
  submit(heavy_, Job{[this, work = std::move(work)] { work(*model_); }, std::move(on_error)});
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
    Jobs jobs;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] {
        return closing_ || !jobs_.empty() || !heavy_.empty() || !pictures_.empty() || !active_.empty() ||
               !waiting_.empty();
      });
      if (closing_) break;
      jobs.swap(jobs_);
    }
    // everybody who has come joins the next step; pictures between two steps do not hold up for long those who read answers
    for (Job& job : jobs) run(job);
    long_job();
    if (!active_.empty() || !waiting_.empty()) step();
  }
  refuse_all();
}

/// The first that came of what takes long. With a picture go others, also such as came after other work.
void Engine::long_job() noexcept {
  Job job;
  {
    std::lock_guard lock(mutex_);
    if (!heavy_.empty() && (pictures_.empty() || heavy_.front().arrived < pictures_.front().arrived)) {
      job = std::move(heavy_.front());
      heavy_.pop_front();
    } else {
      take_pictures();
    }
  }
  if (job.run) {
    run(job);
  } else {
    encode_pictures();
  }
}

/// Into pass_: as many as go together, and those before them that nobody wants any more.
void Engine::take_pictures() noexcept {
  double most = model_->max_images();
  if (!active_.empty() || !waiting_.empty()) {
    // what the last pass took tells what the next one will
    most = picture_ms_ > 0 ? std::clamp(kLongestPause / picture_ms_, 1.0, most) : 1;
  }
  int wanted = 0;
  for (auto next = pictures_.begin(); next != pictures_.end() && wanted < int(most);) {
    const auto picture = next++;
    if (picture->alone && wanted > 0) continue;
    if (!is_unwanted(*picture)) wanted = picture->alone ? int(most) : wanted + 1;
    pass_.splice(pass_.end(), pictures_, picture);
  }
}

/// One pass for pass_, of which each picture gets its own result or error.
void Engine::encode_pictures() noexcept {
  const auto refuse_unwanted = [](const Picture& picture) {
    if (!is_unwanted(picture)) return false;
    Job telling{[&] { picture.refuse(kUnwanted); }, [](const Error&) {}};
    run(telling);
    return true;
  };
  try {
    std::erase_if(pass_, refuse_unwanted);
    if (pass_.empty()) return;
    std::vector<MiniGpt4::Picture> pictures;
    for (const Picture& picture : pass_) pictures.push_back({picture.pixels.data(), picture.projected});
    const auto began = Generation::Clock::now();
    std::vector<ImageTokens> encoded = model_->encode(pictures);
    const std::chrono::duration<double, std::milli> took = Generation::Clock::now() - began;
    picture_ms_ = took.count() / double(pictures.size());
    const EncodeTimes times{took.count(), model_->vit_ms()};
    for (ImageTokens& one : encoded) {
      const Picture& picture = pass_.front();
      if (!refuse_unwanted(picture)) {
        Job telling{[&] { picture.on_done(std::make_shared<const ImageTokens>(std::move(one)), times); },
                    picture.refuse};
        run(telling);
      }
      pass_.pop_front();
    }
  } catch (...) {
    encode_again(as_error(std::current_exception()));
  }
}

/// After a pass that failed. That cannot be laid at one picture's door, so each is tried alone; one that was alone has failed.
void Engine::encode_again(const Error& error) noexcept {
  if (pass_.size() == 1) {
    Job telling{[&] { pass_.front().refuse(error); }, [](const Error&) {}};
    run(telling);
    return pass_.clear();
  }
  for (Picture& picture : pass_) picture.alone = true;
  std::lock_guard lock(mutex_);
  pictures_.splice(pictures_.begin(), pass_);
}

/// What a job throws is told to its caller; nothing leaves this thread.
void Engine::run(Job& job) noexcept {
  try {
    try {
      job.run();
    } catch (...) {
      job.refuse(as_error(std::current_exception()));
    }
  } catch (...) {
    // memory for the very telling is gone: the caller's promise stays open, the engine goes on
  }
}

void Engine::refuse_all() {
  Jobs left;
  std::list<Picture> pictures;
  {
    std::lock_guard lock(mutex_);
    left.swap(jobs_);
    for (Job& job : heavy_) left.push_back(std::move(job));
    heavy_.clear();
    pictures.swap(pictures_);
  }
  while (!conversations_.empty()) {
    const ConversationRef conversation = conversations_.back();
    conversations_.pop_back();
    conversation->closed = true;
    if (conversation->answer) end(conversation, &kClosed);
    conversation->sequence.truncate(0);
  }
  const auto refuse = [](auto& job) {
    Job refusal{[&job] { job.refuse(kClosed); }, [](const Error&) {}};
    run(refusal);
  };
  for (Job& job : left) refuse(job);
  for (Picture& picture : pictures) refuse(picture);
}

void Engine::begin_answer(const ConversationRef& conversation, const std::vector<PromptPart>& parts,
                          const GenerateOptions& options, const GenerateCallbacks& callbacks, const AbortToken& abort,
                          Generation::Clock::time_point requested) {
  if (conversation->closed) throw kClosed;
  if (*abort) throw kAborted;
  if (conversation->answer && conversation->answer->aborted()) end(conversation, &kAborted);
  if (conversation->answer) {
    fail(code::argument, "this conversation is answering already: wait for that answer or abort it");
  }
  conversation->answer = std::make_unique<Generation>(*tokenizer_, conversation->sequence, assemble(parts), options,
                                                      callbacks, abort, requested);
  waiting_.push_back(conversation);
}

/// Every stage of a prompt, in a sequence of its own that is gone afterwards.
std::vector<Engine::Stage> Engine::trace(const std::vector<PromptPart>& parts) {
  const Prompt prompt = assemble(parts);
  std::vector<Stage> stages;
  const Trace record = recorder(stages);
  Sequence sequence(pool_);
  while (sequence.length() < int(prompt.size())) {
    const int from = sequence.length(), n = std::min(batch_.max_rows(), int(prompt.size()) - from);
    make_room(sequence, n);
    const Prompt rows(prompt.begin() + from, prompt.begin() + from + n);
    if (!batch_.run({{&sequence, rows}}, record, [this] { return closing_.load(); })) throw kClosed;
    for (int row = 0; row < n; row += kLogitRows) {
      const int count = std::min(kLogitRows, n - row);
      record(batch_.last().ops(), "logits", next_.logits(batch_.x(), row, count), count, model_->llama().vocab);
    }
  }
  model_->check_files();
  return stages;
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
        if (answer.decodes() != decoding || rows >= batch_.max_rows()) continue;
        Prompt next = answer.next_rows(batch_.max_rows() - rows);
        rows += int(next.size());
        make_room(conversation->sequence, int(next.size()));
        conversation->last_used = ++clock_;
        parts.push_back({&conversation->sequence, std::move(next)});
        owners.push_back(conversation);
      }
    }
    // a pass with a prompt is bound by its arithmetic: guesses would cost there what they save at best
    if (BatchRunner::is_step(parts)) guess(parts, owners);
    const auto interrupted = [&] {
      return closing_ || std::any_of(owners.begin(), owners.end(), [](const auto& c) { return c->answer->aborted(); });
    };
    std::vector<Due> due = due_of(parts, owners);
    if (BatchRunner::is_step(parts) && due.size() == parts.size()) {
      const int n = upload_draws(due);
      batch_.step(parts, [&] { next_.draw(batch_.x(), n); });
    } else {
      // who was aborted is dropped before the pass is run again for the others, with the same result
      if (!batch_.run(parts, {}, interrupted) || due.empty()) return;
      next_.draw(batch_.x(), upload_draws(due));
    }
    model_->check_files();
    hand_out(due);
  } catch (...) {
    // what went wrong cannot be laid at one conversation's door: all that took part end with it, the engine goes on
    const Error error = as_error(std::current_exception());
    while (!active_.empty()) {
      const ConversationRef conversation = active_.back();
      conversation->sequence.truncate(0);
      end(conversation, &error);
    }
  }
}

void Engine::drop_aborted() {
  std::vector<ConversationRef> all(active_);
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  for (const ConversationRef& conversation : all) {
    if (conversation->answer->aborted()) end(conversation, &kAborted);
  }
}

/// Lets waiting answers begin while the cache can hold everything that all active ones may still need.
void Engine::admit() {
  while (!waiting_.empty() && int(active_.size()) < options_.max_sequences) {
    int promised = 0;
    for (const ConversationRef& conversation : active_)
      promised += pages_for(conversation->answer->most_positions(context_));
    const ConversationRef next = waiting_.front();
    if (promised + pages_for(next->answer->most_positions(context_)) > pool_.pages()) return;
    waiting_.pop_front();
    active_.push_back(next);
    share_beginning(*next);
    next->answer->begin(next_.take_place());
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
  for (const Sequence::Copy& copy : copies) batch_.copy_page(copy.to, copy.from);
}

/// Adds to the last tokens what lookup thinks comes after them, where rows of the pass and pages of the cache are free.
void Engine::guess(std::vector<BatchPart>& parts, const std::vector<ConversationRef>& owners) {
  int asking = int(parts.size());
  int room = std::min(kMostGuesses, batch_.max_rows() - asking);
  for (size_t i = 0; i < parts.size(); ++i, --asking) {
    // what some leave of their share goes to those after them
    std::vector<int32_t> guesses = owners[i]->answer->guess(room / asking, context_);
    std::vector<Sequence::Copy> none;  // the last token's page is this sequence's own already
    while (!guesses.empty() && !parts[i].sequence->reserve(1 + int(guesses.size()), none)) guesses.pop_back();
    append_tokens(parts[i].rows, guesses);
    room -= int(guesses.size());
  }
}

/// Before a pass: everybody whose rows it completes.
std::vector<Engine::Due> Engine::due_of(const std::vector<BatchPart>& parts,
                                        const std::vector<ConversationRef>& owners) {
  std::vector<Due> due;
  int32_t first = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Prompt& rows = parts[i].rows;
    const Generation& answer = *owners[i]->answer;
    if (answer.logits_due(int(rows.size()))) {
      Due one{owners[i], first, {}, {answer.generated()}};
      if (answer.decodes()) {
        for (size_t row = 1; row < rows.size(); ++row) one.guesses.push_back(rows[row].id);
      } else {
        one.row += int32_t(rows.size()) - 1;
      }
      due.push_back(std::move(one));
    }
    first += int32_t(rows.size());
  }
  return due;
}

/// What the draws of a pass read. Returns their number.
int Engine::upload_draws(std::vector<Due>& due) {
  std::vector<int32_t> rows;
  std::vector<Ops::Draw> draws;
  int guesses = 0;
  for (Due& one : due) {
    const Generation& answer = *one.owner->answer;
    if (!one.guesses.empty()) {
      const std::vector<uint32_t*> behind = next_.mark(guesses, answer.ids(), one.guesses);
      one.places.insert(one.places.end(), behind.begin(), behind.end());
      guesses += int(behind.size());
    }
    const std::vector<Ops::Draw> own = answer.next_draws(one.places);
    draws.insert(draws.end(), own.begin(), own.end());
    for (size_t i = 0; i < own.size(); ++i) rows.push_back(one.row + int32_t(i));
  }
  next_.upload(rows, draws);
  return int(draws.size());
}

/// The tokens drawn, each to its answer.
void Engine::hand_out(const std::vector<Due>& due) {
  size_t draws = 0;
  for (const Due& one : due) draws += one.places.size();
  const std::vector<int32_t> ids = next_.download(int(draws));
  const int32_t* of_one = ids.data();
  for (const Due& one : due) {
    take(one, of_one);
    of_one += one.places.size();
  }
}

/// Draws of one answer: each counts when the guess before it is what was drawn, so that the logits it was drawn from and
/// the ids marked are those of a step without guesses.
void Engine::take(const Due& due, const int32_t* ids) {
  Generation& answer = *due.owner->answer;
  Sequence& sequence = due.owner->sequence;
  size_t right = 0;
  while (right < due.guesses.size() && ids[right] == due.guesses[right]) ++right;
  sequence.truncate(sequence.length() - int(due.guesses.size() - right));
  if (right > 0) next_.keep(answer.generated(), due.places[right]);
  answer.result().guessed_tokens += int(due.guesses.size());
  try {
    for (size_t i = 0; i <= right; ++i) {
      if (ids[i] < 0) fail_not_finite(-1 - ids[i], next_.logit(batch_.x(), due.row + int32_t(i), -1 - ids[i]));
      if (i > 0) ++answer.result().accepted_tokens;
      if (answer.accept(ids[i], context_)) continue;
      // nothing of it stands in the cache that a step without guesses would not have left there
      sequence.truncate(sequence.length() - int(right - i));
      return end(due.owner, nullptr);
    }
  } catch (const Error& error) {
    end(due.owner, &error);
  }
}

/// Takes the answer off the lists and tells its caller. By value: the list's own reference may be what was passed.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void Engine::end(ConversationRef conversation, const Error* error) noexcept {
  std::erase(active_, conversation);
  std::erase(waiting_, conversation);
  // the answer goes before its caller hears of it, so that the caller may ask again at once
  const std::unique_ptr<Generation> answer = std::move(conversation->answer);
  const GenerateCallbacks& callbacks = answer->callbacks();
  if (answer->generated()) next_.give_place(answer->generated());
  Job telling{[&] {
                if (error) {
                  if (callbacks.on_error) callbacks.on_error(*error);
                } else if (callbacks.on_done) {
                  callbacks.on_done(std::move(answer->result()));
                }
              },
              [](const Error&) {}};
  run(telling);
}

/// The prompt's positions. ERR_CONTEXT_FULL comes before the time it would take to tokenize far too long a text.
Prompt Engine::assemble(const std::vector<PromptPart>& parts) const {
  Prompt prompt;
  const auto check_length = [&](size_t positions, const char* at_least) {
    if (positions <= size_t(context_)) return;
    fail(code::context_full, "the prompt takes ", at_least, positions, " positions, but the context has ", context_,
         ": shorten it, or load the model with a longer context");
  };
  for (const PromptPart& part : parts) {
    if (const auto* text = std::get_if<std::string>(&part)) {
      check_length(prompt.size() + text->size() / longest_piece_, "at least ");
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
  check_length(prompt.size(), "");
  for (const Slot& slot : prompt) {
    if (!slot.image && (slot.id < 0 || slot.id >= model_->llama().vocab)) {
      fail(code::argument, "token id ", slot.id, " is outside the vocabulary of ", model_->llama().vocab, " tokens");
    }
  }
  return prompt;
}

/// Collects stages in host memory; chunks of one stage are put end to end.
Trace Engine::recorder(std::vector<Stage>& stages) {
  return [&stages](Ops& ops, const std::string& name, const float* rows, int64_t T, int64_t C) {
    auto stage = std::find_if(stages.begin(), stages.end(), [&](const Stage& s) { return s.name == name; });
    if (stage == stages.end()) {
      stages.push_back({name, {}, 0, C});
      stage = stages.end() - 1;
    }
    const size_t before = stage->values.size();
    stage->values.resize(before + size_t(T) * size_t(C));
    stage->rows += T;
    ops.download(stage->values.data() + before, rows, size_t(T) * size_t(C) * sizeof(float));
  };
}

}  // namespace minigpt4
