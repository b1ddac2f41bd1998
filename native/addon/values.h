// JavaScript values to native ones and back, checked.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/gguf.h"

namespace minigpt4::addon {

// Reading: a value of another kind throws ERR_ARGUMENT naming `what`, what was expected and what was found.
std::string to_string(const Napi::Value& value, const char* what);
double to_number(const Napi::Value& value, const char* what);
/// An integer in [low, high].
int64_t to_integer(const Napi::Value& value, const char* what, int64_t low, int64_t high);
/// A number or a bigint, modulo 2^64.
uint64_t to_seed(const Napi::Value& value, const char* what);
bool to_bool(const Napi::Value& value, const char* what);
Napi::Object to_object(const Napi::Value& value, const char* what);
Napi::Array to_array(const Napi::Value& value, const char* what);
Napi::Function to_function(const Napi::Value& value, const char* what);
Type to_type(const Napi::Value& value, const char* what);
/// A Uint8Array (Buffer included), as a view of its bytes. Valid until JavaScript runs again, and on its thread only.
struct Bytes {
  const uint8_t* data;
  size_t size;
};
Bytes to_bytes(const Napi::Value& value, const char* what);
std::vector<float> to_floats(const Napi::Value& value, const char* what);  // Float32Array
std::vector<int32_t> to_ids(const Napi::Value& value, const char* what);   // Int32Array or an array of integers
std::vector<std::string> to_strings(const Napi::Value& value, const char* what);

/// A property that is there and not undefined.
bool has(const Napi::Object& object, const char* key);

// Writing.
Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values);
Napi::Int32Array from_ids(Napi::Env env, const std::vector<int32_t>& ids);
Napi::Uint8Array from_bytes(Napi::Env env, const void* data, size_t size);
/// Lower case, as the command line writes types.
Napi::String from_type(Napi::Env env, Type type);

/// GGUF's number of the array type.
inline constexpr uint32_t kGgufArray = 9;

// GGUF metadata (GgufKey of lib/addon.ts).
Napi::Object from_gguf_key(Napi::Env env, const std::string& key, const GgufValue& value);
std::pair<std::string, GgufValue> to_gguf_key(const Napi::Value& value);

}  // namespace minigpt4::addon
