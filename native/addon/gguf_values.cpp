// GGUF metadata between the file's types and JavaScript's.
#include <cmath>
#include <limits>

#include "addon/values.h"
#include "core/error.h"

namespace minigpt4::addon {
namespace {

// by GGUF's type number; 9 is the array
constexpr const char* kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};
constexpr double kLargestExact = 9007199254740992.0;  // 2^53

uint32_t type_number(const std::string& name, const std::string& key) {
  for (uint32_t i = 0; i < std::size(kTypeNames); ++i) {
    if (name == kTypeNames[i]) return i;
  }
  fail(code::argument, "key ", key, ": \"", name, "\" is no metadata type, expected u32, f32, string, …");
}

bool is_unsigned(uint32_t type) { return type == 0 || type == 2 || type == 4 || type == 10; }
bool is_signed(uint32_t type) { return type == 1 || type == 3 || type == 5 || type == 11; }

Napi::Value from(Napi::Env env, uint64_t v) {
  if (double(v) <= kLargestExact) return Napi::Number::New(env, double(v));
  return Napi::BigInt::New(env, v);
}
Napi::Value from(Napi::Env env, int64_t v) {
  if (std::fabs(double(v)) <= kLargestExact) return Napi::Number::New(env, double(v));
  return Napi::BigInt::New(env, v);
}
Napi::Value from(Napi::Env env, double v) { return Napi::Number::New(env, v); }
Napi::Value from(Napi::Env env, bool v) { return Napi::Boolean::New(env, v); }
Napi::Value from(Napi::Env env, const std::string& v) { return Napi::String::New(env, v); }

template <class V>
Napi::Value from(Napi::Env env, const std::vector<V>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const V& value = values[i];
    array.Set(uint32_t(i), from(env, value));
  }
  return array;
}

int width_of(uint32_t type) { return type <= 1 ? 8 : type <= 3 ? 16 : type <= 5 ? 32 : 64; }

uint64_t unsigned_of(const Napi::Value& value, uint32_t type, const std::string& key) {
  if (value.IsBigInt()) {
    bool lossless = false;
    const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
    if (!lossless) fail(code::argument, "key ", key, ": the number does not fit 64 bits without a sign");
    return number;
  }
  const int bits = width_of(type);
  return uint64_t(to_integer(value, key.c_str(), 0, bits == 64 ? int64_t(kLargestExact) : (int64_t(1) << bits) - 1));
}

int64_t signed_of(const Napi::Value& value, uint32_t type, const std::string& key) {
  if (value.IsBigInt()) {
    bool lossless = false;
    const int64_t number = value.As<Napi::BigInt>().Int64Value(&lossless);
    if (!lossless) fail(code::argument, "key ", key, ": the number does not fit 64 bits");
    return number;
  }
  const int bits = width_of(type);
  const int64_t limit = bits == 64 ? int64_t(kLargestExact) : (int64_t(1) << (bits - 1)) - 1;
  return to_integer(value, key.c_str(), -limit - (bits == 64 ? 0 : 1), limit);
}

template <class V, class Convert>
std::vector<V> all(const Napi::Array& array, Convert convert) {
  std::vector<V> values;
  values.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) values.push_back(convert(array.Get(i)));
  return values;
}

}  // namespace

Napi::Object from_gguf_key(Napi::Env env, const std::string& key, const GgufValue& value) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("key", key);
  object.Set("type", kTypeNames[value.type]);
  if (value.type == kGgufArray) object.Set("elementType", kTypeNames[value.element_type]);
  object.Set("value", std::visit([&](const auto& v) -> Napi::Value { return from(env, v); }, value.value));
  return object;
}

std::pair<std::string, GgufValue> to_gguf_key(const Napi::Value& entry) {
  const Napi::Object object = to_object(entry, "metadata entry");
  const std::string key = to_string(object.Get("key"), "metadata key");
  const char* what = key.c_str();
  GgufValue result;
  result.type = type_number(to_string(object.Get("type"), what), key);
  const Napi::Value value = object.Get("value");
  if (result.type != kGgufArray) {
    if (is_unsigned(result.type))
      result.value = unsigned_of(value, result.type, key);
    else if (is_signed(result.type))
      result.value = signed_of(value, result.type, key);
    else if (result.type == 7)
      result.value = to_bool(value, what);
    else if (result.type == 8)
      result.value = to_string(value, what);
    else
      result.value = to_number(value, what);
    return {key, result};
  }
  result.element_type = type_number(to_string(object.Get("elementType"), what), key);
  const uint32_t element = result.element_type;
  const Napi::Array array = to_array(value, what);
  if (is_unsigned(element))
    result.value = all<uint64_t>(array, [&](const Napi::Value& v) { return unsigned_of(v, element, key); });
  else if (is_signed(element))
    result.value = all<int64_t>(array, [&](const Napi::Value& v) { return signed_of(v, element, key); });
  else if (element == 7)
    result.value = all<bool>(array, [&](const Napi::Value& v) { return to_bool(v, what); });
  else if (element == 8)
    result.value = all<std::string>(array, [&](const Napi::Value& v) { return to_string(v, what); });
  else if (element == kGgufArray)
    fail(code::argument, "key ", key, ": arrays of arrays are not written");
  else
    result.value = all<double>(array, [&](const Napi::Value& v) { return to_number(v, what); });
  return {key, result};
}

}  // namespace minigpt4::addon
