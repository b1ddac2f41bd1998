// One answer in the making: what to compute next, how the next token is drawn, and when it is over.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "engine/draws.h"
#include "engine/lookup.h"
#include "engine/sequence.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace minigpt4 {

/// A piece of a prompt as callers write it: text that is tokenized on its own, one token by id, ready ids, or a picture.
using PromptPart = std::variant<std::string, int32_t, std::vector<int32_t>, Image>;

/// Tokens that one answer may guess for a pass: more are seldom all right, and each costs a row.
inline constexpr int kMostLookup = 16;

struct GenerateOptions {
  int max_tokens = 300;  // the original's max_new_tokens
  int lookup = 0;        // tokens guessed for a pass at most; the answer is the same as with 0
  SamplingOptions sampling;
  std::vector<std::string> stop;  // stop when the answer contains one of these, which is cut off
  std::vector<int32_t> stop_ids;  // stop after one of these
};

enum class FinishReason { stop, eos, length, context };
const char* name(FinishReason reason);

struct GenerateResult {
  std::string text;
  std::vector<int32_t> ids;  // the one that ended the answer included
  FinishReason reason = FinishReason::length;
  int prompt_tokens = 0, cached_tokens = 0, image_tokens = 0;
  int guessed_tokens = 0;   // by lookup
  int accepted_tokens = 0;  // of them, those that stand in the answer without a pass of their own
  double prefill_ms = 0, decode_ms = 0, first_token_ms = 0;
};

/// Set from any thread to end one answer.
using AbortToken = std::shared_ptr<std::atomic<bool>>;

/// Called on the engine's thread. Exactly one of on_done and on_error, once, last.
struct GenerateCallbacks {
  std::function<void(std::string text, std::vector<int32_t> ids)> on_text;
  std::function<void(GenerateResult)> on_done;
  std::function<void(const Error&)> on_error;
};

class Generation {
 public:
  using Clock = std::chrono::steady_clock;

  /// `requested`: when the caller asked. Errors: those of Draws; ERR_ARGUMENT (max_tokens < 1, lookup out of range, empty
  /// prompt).
  Generation(const Tokenizer& tokenizer, Sequence& sequence, Prompt prompt, GenerateOptions options,
             GenerateCallbacks callbacks, AbortToken abort, Clock::time_point requested);

  Sequence& sequence() { return sequence_; }
  const Prompt& prompt() const { return prompt_; }
  const std::vector<int32_t>& ids() const { return result_.ids; }  // drawn until now
  const GenerateCallbacks& callbacks() const { return callbacks_; }
  bool aborted() const { return *abort_; }
  /// Positions that this answer takes at most, prompt included.
  int most_positions(int context) const;
  /// Starts the clock and keeps of the sequence's cache what the prompt begins with; the last position is always
  /// computed anew, because its logits are needed. `generated`: where the backend marks the ids drawn, none yet.
  void begin(uint32_t* generated);
  uint32_t* generated() const { return generated_; }  // null before begin()
  /// True once the whole prompt is computed.
  bool decodes() const { return sequence_.length() >= int(prompt_.size()); }
  /// What stands at the positions that are to be computed next: at most `limit` of the prompt's, or the last token.
  Prompt next_rows(int limit) const;
  /// True when computing these rows completes the prompt or the last token, so that logits are due.
  bool logits_due(int rows) const;
  /// What may come after the last token, at most `most` ids, none after which the answer would be too long.
  std::vector<int32_t> guess(int most, int context) const;
  /// How the next token is drawn and those after it, one for each place that has the ids generated until then marked.
  std::vector<Ops::Draw> next_draws(const std::vector<uint32_t*>& places) const;
  /// Takes the token drawn. True: the answer goes on; false: it is over and `result()` is complete.
  bool accept(int32_t id, int context);
  GenerateResult& result() { return result_; }

 private:
  Sequence& sequence_;
  Prompt prompt_;
  GenerateOptions options_;
  GenerateCallbacks callbacks_;
  AbortToken abort_;
  Draws draws_;
  StreamingDetokenizer detokenizer_;
  StopMatcher stops_;
  Lookup lookup_;  // of the prompt and the answer; nothing where the options want no guesses
  GenerateResult result_;
  std::vector<int32_t> unsent_;  // ids since the last on_text
  uint32_t* generated_ = nullptr;
  Clock::time_point requested_, began_, first_token_;

  bool finish(FinishReason reason);
  void send(const std::string& text);
};

}  // namespace minigpt4
