#include "addon/values.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace minigpt4::addon {
namespace {

const char* kind(const Napi::Value& value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
      return "a boolean";
    case napi_number:
      return "a number";
    case napi_string:
      return "a string";
    case napi_symbol:
      return "a symbol";
    case napi_function:
      return "a function";
    case napi_external:
      return "an external value";
    case napi_bigint:
      return "a bigint";
    case napi_object:
      return value.IsArray() ? "an array" : value.IsTypedArray() ? "a typed array" : "an object";
  }
  return "something else";
}

[[noreturn]] void wrong(const char* what, const char* expected, const Napi::Value& found) {
  fail(code::argument, what, ": expected ", expected, ", found ", kind(found));
}

}  // namespace

std::string to_string(const Napi::Value& value, const char* what) {
  if (!value.IsString()) wrong(what, "a string", value);
  return value.As<Napi::String>().Utf8Value();
}

double to_number(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) wrong(what, "a number", value);
  return value.As<Napi::Number>().DoubleValue();
}

int64_t to_integer(const Napi::Value& value, const char* what, int64_t low, int64_t high) {
  const double number = to_number(value, what);
  if (!(number >= double(low) && number <= double(high)) || number != std::floor(number)) {
    fail(code::argument, what, ": expected an integer from ", low, " to ", high, ", found ", number);
  }
  return int64_t(number);
}

uint64_t to_seed(const Napi::Value& value, const char* what) {
  if (value.IsBigInt()) {
    bool lossless = false;
    return value.As<Napi::BigInt>().Uint64Value(&lossless);
  }
  return uint64_t(to_integer(value, what, 0, (int64_t(1) << 53) - 1));
}

bool to_bool(const Napi::Value& value, const char* what) {
  if (!value.IsBoolean()) wrong(what, "a boolean", value);
  return value.As<Napi::Boolean>().Value();
}

Napi::Object to_object(const Napi::Value& value, const char* what) {
  if (!value.IsObject()) wrong(what, "an object", value);
  return value.As<Napi::Object>();
}

Napi::Array to_array(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) wrong(what, "an array", value);
  return value.As<Napi::Array>();
}

Napi::Function to_function(const Napi::Value& value, const char* what) {
  if (!value.IsFunction()) wrong(what, "a function", value);
  return value.As<Napi::Function>();
}

Type to_type(const Napi::Value& value, const char* what) {
  const std::string text = to_string(value, what);
  const auto type = type_by_name(text);
  if (!type)
    fail(code::argument, what, ": \"", text, "\" is no type that is known here, expected f32, f16, bf16, q8_0, …");
  return *type;
}

Bytes to_bytes(const Napi::Value& value, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    wrong(what, "a Uint8Array", value);
  }
  const auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

std::vector<float> to_floats(const Napi::Value& value, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    wrong(what, "a Float32Array", value);
  }
  const auto array = value.As<Napi::Float32Array>();
  return std::vector<float>(array.Data(), array.Data() + array.ElementLength());
}

std::vector<int32_t> to_ids(const Napi::Value& value, const char* what) {
  if (value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array) {
    const auto array = value.As<Napi::Int32Array>();
    return std::vector<int32_t>(array.Data(), array.Data() + array.ElementLength());
  }
  if (!value.IsArray()) wrong(what, "an Int32Array or an array of integers", value);
  const auto array = value.As<Napi::Array>();
  std::vector<int32_t> ids;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    ids.push_back(int32_t(to_integer(array.Get(i), what, 0, std::numeric_limits<int32_t>::max())));
  }
  return ids;
}

std::vector<std::string> to_strings(const Napi::Value& value, const char* what) {
  const Napi::Array array = to_array(value, what);
  std::vector<std::string> strings;
  for (uint32_t i = 0; i < array.Length(); ++i) strings.push_back(to_string(array.Get(i), what));
  return strings;
}

bool has(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  return !value.IsUndefined();
}

Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values) {
  auto array = Napi::Float32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

Napi::Int32Array from_ids(Napi::Env env, const std::vector<int32_t>& ids) {
  auto array = Napi::Int32Array::New(env, ids.size());
  if (!ids.empty()) std::memcpy(array.Data(), ids.data(), ids.size() * sizeof(int32_t));
  return array;
}

Napi::Uint8Array from_bytes(Napi::Env env, const void* data, size_t size) {
  auto array = Napi::Uint8Array::New(env, size);
  if (size) std::memcpy(array.Data(), data, size);
  return array;
}

Napi::String from_type(Napi::Env env, Type type) {
  std::string text = name(type);
  for (char& c : text) c = char(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return Napi::String::New(env, text);
}

}  // namespace minigpt4::addon
