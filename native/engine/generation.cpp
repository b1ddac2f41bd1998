#include "engine/generation.h"

#include <algorithm>

namespace minigpt4 {
namespace {

double milliseconds(Generation::Clock::time_point from, Generation::Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

const char* name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::eos:
      return "eos";
    case FinishReason::length:
      return "length";
    case FinishReason::context:
      return "context";
  }
  return "";
}

Generation::Generation(const Tokenizer& tokenizer, Sequence& sequence, Prompt prompt, GenerateOptions options,
                       GenerateCallbacks callbacks, AbortToken abort, Clock::time_point requested)
    : sequence_(sequence),
      prompt_(std::move(prompt)),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      abort_(std::move(abort)),
      draws_(options_.sampling),
      detokenizer_(tokenizer),
      stops_(options_.stop),
      requested_(requested) {
  if (prompt_.empty()) fail(code::argument, "the prompt is empty, expected at least one token");
  if (options_.max_tokens < 1)
    fail(code::argument, "the token limit is ", options_.max_tokens, ", expected at least 1");
  if (options_.lookup < 0 || options_.lookup > kMostLookup)
    fail(code::argument, "lookup is ", options_.lookup, ", expected 0 (off) to ", kMostLookup);
  result_.prompt_tokens = int(prompt_.size());
  for (const Slot& slot : prompt_) result_.image_tokens += slot.image ? 1 : 0;
}

int Generation::most_positions(int context) const {
  return int(std::min<int64_t>(context, int64_t(prompt_.size()) + options_.max_tokens));
}

void Generation::begin(uint32_t* generated) {
  generated_ = generated;
  began_ = Clock::now();
  const int keep = std::min(common_prefix(sequence_.slots(), prompt_), int(prompt_.size()) - 1);
  sequence_.truncate(keep);
  result_.cached_tokens = keep;
  if (options_.lookup == 0) return;
  for (const Slot& slot : prompt_) lookup_.append(slot.id);
}

Prompt Generation::next_rows(int limit) const {
  const size_t done = size_t(sequence_.length());
  if (done < prompt_.size()) {
    const size_t end = std::min(prompt_.size(), done + size_t(limit));
    return Prompt(prompt_.begin() + std::ptrdiff_t(done), prompt_.begin() + std::ptrdiff_t(end));
  }
  return {Slot{result_.ids.back(), 0, nullptr}};
}

bool Generation::logits_due(int rows) const { return size_t(sequence_.length()) + size_t(rows) >= prompt_.size(); }

std::vector<int32_t> Generation::guess(int most, int context) const {
  if (options_.lookup == 0 || result_.ids.empty()) return {};
  // the token that ends the answer, by its number or for want of a position, need not be computed with
  const int64_t tokens = int64_t(options_.max_tokens) - 1 - int64_t(result_.ids.size());
  const int64_t positions = int64_t(context) - int64_t(prompt_.size() + result_.ids.size());
  return lookup_.guess(int(std::min<int64_t>({most, options_.lookup, tokens, positions})));
}

std::vector<Ops::Draw> Generation::next_draws(const std::vector<uint32_t*>& places) const {
  Draws ahead = draws_;
  std::vector<Ops::Draw> draws;
  for (uint32_t* place : places) draws.push_back(ahead.next(place));
  return draws;
}

bool Generation::accept(int32_t id, int context) {
  if (result_.ids.empty()) {
    first_token_ = Clock::now();
    result_.prefill_ms = milliseconds(began_, first_token_);
    result_.first_token_ms = milliseconds(requested_, first_token_);
  }
  draws_.next(generated_);  // uses up its random number
  result_.ids.push_back(id);
  if (options_.lookup > 0) lookup_.append(id);
  unsent_.push_back(id);
  if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), id) != options_.stop_ids.end()) {
    return finish(FinishReason::eos);
  }
  send(stops_.push(detokenizer_.push(id)));
  if (stops_.stopped()) return finish(FinishReason::stop);
  if (int(result_.ids.size()) >= options_.max_tokens) return finish(FinishReason::length);
  // the token just drawn would need a position of its own
  if (int(prompt_.size() + result_.ids.size()) > context) return finish(FinishReason::context);
  return true;
}

bool Generation::finish(FinishReason reason) {
  result_.reason = reason;
  result_.decode_ms = milliseconds(first_token_, Clock::now());
  std::string rest = stops_.push(detokenizer_.finish());
  rest += stops_.finish();
  send(rest);
  return false;
}

void Generation::send(const std::string& text) {
  if (text.empty()) return;
  result_.text += text;
  if (callbacks_.on_text) callbacks_.on_text(text, std::move(unsent_));
  unsent_.clear();
}

}  // namespace minigpt4
