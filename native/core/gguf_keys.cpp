// Typed access to the metadata of an open GGUF file.
#include "core/gguf.h"
#include "core/gguf_value.h"

namespace minigpt4 {

namespace {

[[noreturn]] void absent(const std::string& path, std::string_view key) {
  fail(code::file_format, path, " has no key ", key, ", which is needed");
}

[[noreturn]] void wrong_kind(const std::string& path, std::string_view key, const GgufValue& value,
                             const char* expected) {
  fail(code::file_format, path, ": key ", key, " is ", gguf_kind_name(value), ", expected ", expected);
}

uint64_t as_unsigned(const std::string& path, std::string_view key, const GgufValue& value) {
  if (const uint64_t* number = std::get_if<uint64_t>(&value.value)) return *number;
  if (const int64_t* number = std::get_if<int64_t>(&value.value)) {
    if (*number < 0) fail(code::file_format, path, ": key ", key, " is ", *number, ", expected no negative number");
    return uint64_t(*number);
  }
  wrong_kind(path, key, value, "an integer");
}

double as_float(const std::string& path, std::string_view key, const GgufValue& value) {
  if (const double* number = std::get_if<double>(&value.value)) return *number;
  wrong_kind(path, key, value, "f32 or f64");
}

const std::string& as_string(const std::string& path, std::string_view key, const GgufValue& value) {
  if (const std::string* text = std::get_if<std::string>(&value.value)) return *text;
  wrong_kind(path, key, value, "a string");
}

}  // namespace

uint64_t GgufFile::unsigned_key(std::string_view key) const {
  const GgufValue* value = find(key);
  return value ? as_unsigned(path(), key, *value) : (absent(path(), key), 0);
}

uint64_t GgufFile::unsigned_key(std::string_view key, uint64_t otherwise) const {
  const GgufValue* value = find(key);
  return value ? as_unsigned(path(), key, *value) : otherwise;
}

double GgufFile::float_key(std::string_view key) const {
  const GgufValue* value = find(key);
  return value ? as_float(path(), key, *value) : (absent(path(), key), 0);
}

double GgufFile::float_key(std::string_view key, double otherwise) const {
  const GgufValue* value = find(key);
  return value ? as_float(path(), key, *value) : otherwise;
}

bool GgufFile::bool_key(std::string_view key, bool otherwise) const {
  const GgufValue* value = find(key);
  if (!value) return otherwise;
  if (const bool* flag = std::get_if<bool>(&value->value)) return *flag;
  wrong_kind(path(), key, *value, "a bool");
}

std::string GgufFile::string_key(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) absent(path(), key);
  return as_string(path(), key, *value);
}

std::string GgufFile::string_key(std::string_view key, std::string_view otherwise) const {
  const GgufValue* value = find(key);
  return value ? as_string(path(), key, *value) : std::string(otherwise);
}

const std::vector<std::string>& GgufFile::strings_key(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) absent(path(), key);
  if (const auto* all = std::get_if<std::vector<std::string>>(&value->value)) return *all;
  wrong_kind(path(), key, *value, "an array of strings");
}

std::vector<double> GgufFile::floats_key(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) absent(path(), key);
  if (const auto* all = std::get_if<std::vector<double>>(&value->value)) return *all;
  wrong_kind(path(), key, *value, "an array of f32 or f64");
}

std::vector<int64_t> GgufFile::integers_key(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) absent(path(), key);
  if (const auto* all = std::get_if<std::vector<int64_t>>(&value->value)) return *all;
  if (const auto* all = std::get_if<std::vector<uint64_t>>(&value->value)) {
    for (const uint64_t each : *all) {
      if (each > uint64_t(INT64_MAX))
        fail(code::file_format, path(), ": key ", key, " holds ", each, ", expected less than 2^63");
    }
    return {all->begin(), all->end()};
  }
  wrong_kind(path(), key, *value, "an array of integers");
}

}  // namespace minigpt4
