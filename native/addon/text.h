// encode() and decode() of JavaScript's objects that have a tokenizer: the model, and the tokenizer without one.
#pragma once

#include <napi.h>

#include "text/tokenizer.h"

namespace minigpt4::addon {

/// Ids of call(text, specials?).
Napi::Value encode_text(const Napi::CallbackInfo& call, const Tokenizer& tokenizer);
/// The text of call(ids).
Napi::Value decode_ids(const Napi::CallbackInfo& call, const Tokenizer& tokenizer);

}  // namespace minigpt4::addon
