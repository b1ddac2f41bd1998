// readSentencePiece and the tokenizer without a model.
#include "addon/text.h"

#include "addon/classes.h"
#include "addon/errors.h"
#include "addon/values.h"
#include "core/gguf.h"

namespace minigpt4::addon {

Napi::Value encode_text(const Napi::CallbackInfo& call, const Tokenizer& tokenizer) {
  const std::string text = to_string(call[0], "text");
  const bool specials = call.Length() > 1 && !call[1].IsUndefined() && to_bool(call[1], "specials");
  return from_ids(call.Env(), specials ? tokenizer.encode_with_specials(text) : tokenizer.encode(text));
}

Napi::Value decode_ids(const Napi::CallbackInfo& call, const Tokenizer& tokenizer) {
  return Napi::String::New(call.Env(), tokenizer.decode(to_ids(call[0], "ids")));
}

namespace {

class NativeTokenizer : public Napi::ObjectWrap<NativeTokenizer> {
 public:
  explicit NativeTokenizer(const Napi::CallbackInfo& info)
      : ObjectWrap(info), tokenizer_(payload_of<Tokenizer>(info)) {}

  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeTokenizer",
        {InstanceAccessor<&NativeTokenizer::size>("size"), InstanceMethod<&NativeTokenizer::encode>("encode"),
         InstanceMethod<&NativeTokenizer::decode>("decode"), InstanceMethod<&NativeTokenizer::id_of>("idOf")});
  }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;

  Napi::Value size(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), tokenizer_->size()); }
  Napi::Value encode(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return encode_text(info, *tokenizer_); });
  }
  Napi::Value decode(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return decode_ids(info, *tokenizer_); });
  }
  Napi::Value id_of(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      return Napi::Number::New(info.Env(), tokenizer_->id_of(to_string(info[0], "piece")));
    });
  }
};

Napi::Value read_sentencepiece(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Bytes bytes = to_bytes(info[0], "tokenizer.model");
    const Vocabulary v = vocabulary_from_sentencepiece(bytes.data, bytes.size);
    Napi::Object object = Napi::Object::New(env);
    Napi::Array pieces = Napi::Array::New(env, v.pieces.size());
    for (size_t i = 0; i < v.pieces.size(); ++i) pieces.Set(uint32_t(i), v.pieces[i]);
    std::vector<int32_t> kinds;
    for (PieceKind kind : v.kinds) kinds.push_back(int32_t(kind));
    object.Set("pieces", pieces);
    object.Set("scores", from_floats(env, v.scores));
    object.Set("kinds", from_ids(env, kinds));
    object.Set("bos", v.bos);
    object.Set("eos", v.eos);
    object.Set("unknown", v.unknown);
    object.Set("padding", v.padding);
    object.Set("addSpacePrefix", v.add_space_prefix);
    object.Set("removeExtraWhitespaces", v.remove_extra_whitespaces);
    return object;
  });
}

Napi::Value create_tokenizer(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    std::unique_ptr<Tokenizer> tokenizer;
    if (info[0].IsString()) {
      const GgufFile file(to_string(info[0], "source"));
      tokenizer = make_tokenizer(vocabulary_from_gguf(file));
    } else {
      const Bytes bytes = to_bytes(info[0], "source");
      tokenizer = make_tokenizer(vocabulary_from_sentencepiece(bytes.data, bytes.size));
    }
    return make(env.GetInstanceData<AddonData>()->tokenizer, std::move(tokenizer));
  });
}

}  // namespace

void define_text(Napi::Env env, Napi::Object exports, AddonData& data) {
  data.tokenizer = Napi::Persistent(NativeTokenizer::define(env));
  exports.Set("readSentencePiece", Napi::Function::New(env, read_sentencepiece, "readSentencePiece"));
  exports.Set("createTokenizer", Napi::Function::New(env, create_tokenizer, "createTokenizer"));
}

}  // namespace minigpt4::addon
