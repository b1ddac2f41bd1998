// Reads and writes one metadata value.
#include "core/gguf_value.h"

#include <limits>
#include <type_traits>

namespace minigpt4 {

namespace {

enum Kind : uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64 };

constexpr const char* kKindNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};

bool read_bool(GgufCursor& cursor, const std::string& key) {
  const size_t start = cursor.position();
  const uint8_t byte = cursor.number<uint8_t>("a bool");
  if (byte > 1) {
    fail(code::file_format, cursor.path(), ": key ", quoted(key), " at byte ", start,
         " is a bool, expected 0 or 1, found ", int(byte));
  }
  return byte == 1;
}

/// `count` numbers that are Stored in the file, widened to Held.
template <class Held, class Stored>
std::vector<Held> numbers(GgufCursor& cursor) {
  const uint64_t count = cursor.count("an array's length", sizeof(Stored), sizeof(Held));
  std::vector<Held> all(size_t(count), Held{});
  for (Held& each : all) each = Held(cursor.number<Stored>("an array's element"));
  return all;
}

void read_array(GgufCursor& cursor, const std::string& key, GgufValue& into) {
  const size_t start = cursor.position();
  into.element_type = cursor.number<uint32_t>("an array's element type");
  switch (into.element_type) {
    case U8:
      into.value = numbers<uint64_t, uint8_t>(cursor);
      return;
    case I8:
      into.value = numbers<int64_t, int8_t>(cursor);
      return;
    case U16:
      into.value = numbers<uint64_t, uint16_t>(cursor);
      return;
    case I16:
      into.value = numbers<int64_t, int16_t>(cursor);
      return;
    case U32:
      into.value = numbers<uint64_t, uint32_t>(cursor);
      return;
    case I32:
      into.value = numbers<int64_t, int32_t>(cursor);
      return;
    case F32:
      into.value = numbers<double, float>(cursor);
      return;
    case U64:
      into.value = numbers<uint64_t, uint64_t>(cursor);
      return;
    case I64:
      into.value = numbers<int64_t, int64_t>(cursor);
      return;
    case F64:
      into.value = numbers<double, double>(cursor);
      return;
    case Bool: {
      const uint64_t count = cursor.count("an array's length", 1, 1);
      std::vector<bool> all(size_t(count), false);
      for (uint64_t i = 0; i < count; ++i) all[i] = read_bool(cursor, key);
      into.value = std::move(all);
      return;
    }
    case String: {
      const uint64_t count = cursor.count("an array's length", sizeof(uint64_t), sizeof(std::string));
      std::vector<std::string> all;
      all.reserve(size_t(count));
      for (uint64_t i = 0; i < count; ++i) all.push_back(cursor.string("a string of an array"));
      into.value = std::move(all);
      return;
    }
    case Array:
      fail(code::unsupported, cursor.path(), ": key ", quoted(key), " at byte ", start,
           " is an array of arrays, which no known file uses and this version does not read");
  }
  fail(code::file_format, cursor.path(), ": key ", quoted(key), " at byte ", start, " is an array of elements of type ",
       into.element_type, ", expected 0 to 12");
}

/// Narrows what is held in 64 bits to what the file's type holds.
template <class Stored, class Held>
void append_as(std::string& bytes, const std::string& key, Held held) {
  if constexpr (std::is_integral_v<Stored>) {
    if (held < Held(std::numeric_limits<Stored>::min()) || held > Held(std::numeric_limits<Stored>::max())) {
      fail(code::argument, "key ", quoted(key), ": ", held, " does not fit the key's type");
    }
  }
  append_number(bytes, Stored(held));
}

/// The alternative of the value that its type number asks for.
template <class Held>
const Held& held(const std::string& key, const GgufValue& value) {
  if (const Held* found = std::get_if<Held>(&value.value)) return *found;
  fail(code::argument, "key ", quoted(key), " holds a value of another kind than its type (", value.type, ") says");
}

template <class Stored, class Held>
void append_all(std::string& bytes, const std::string& key, const GgufValue& value) {
  const auto& all = held<std::vector<Held>>(key, value);
  append_number(bytes, uint64_t(all.size()));
  for (const Held each : all) append_as<Stored>(bytes, key, each);
}

void append_array(std::string& bytes, const std::string& key, const GgufValue& value) {
  append_number(bytes, value.element_type);
  switch (value.element_type) {
    case U8:
      return append_all<uint8_t, uint64_t>(bytes, key, value);
    case I8:
      return append_all<int8_t, int64_t>(bytes, key, value);
    case U16:
      return append_all<uint16_t, uint64_t>(bytes, key, value);
    case I16:
      return append_all<int16_t, int64_t>(bytes, key, value);
    case U32:
      return append_all<uint32_t, uint64_t>(bytes, key, value);
    case I32:
      return append_all<int32_t, int64_t>(bytes, key, value);
    case F32:
      return append_all<float, double>(bytes, key, value);
    case Bool:
      return append_all<uint8_t, bool>(bytes, key, value);
    case U64:
      return append_all<uint64_t, uint64_t>(bytes, key, value);
    case I64:
      return append_all<int64_t, int64_t>(bytes, key, value);
    case F64:
      return append_all<double, double>(bytes, key, value);
    case String: {
      const auto& all = held<std::vector<std::string>>(key, value);
      append_number(bytes, uint64_t(all.size()));
      for (const std::string& each : all) append_gguf_string(bytes, each);
      return;
    }
  }
  fail(code::argument, "key ", quoted(key), " is an array of elements of type ", value.element_type,
       ", expected 0 to 8 or 10 to 12");
}

}  // namespace

std::string gguf_kind_name(const GgufValue& value) {
  if (value.type == Array) return std::string("array of ") + kKindNames[value.element_type];
  return kKindNames[value.type];
}

GgufValue read_gguf_value(GgufCursor& cursor, const std::string& key) {
  const size_t start = cursor.position();
  GgufValue read;
  read.type = cursor.number<uint32_t>("a key's type");
  switch (read.type) {
    case U8:
      read.value = uint64_t(cursor.number<uint8_t>("a u8"));
      return read;
    case I8:
      read.value = int64_t(cursor.number<int8_t>("an i8"));
      return read;
    case U16:
      read.value = uint64_t(cursor.number<uint16_t>("a u16"));
      return read;
    case I16:
      read.value = int64_t(cursor.number<int16_t>("an i16"));
      return read;
    case U32:
      read.value = uint64_t(cursor.number<uint32_t>("a u32"));
      return read;
    case I32:
      read.value = int64_t(cursor.number<int32_t>("an i32"));
      return read;
    case F32:
      read.value = double(cursor.number<float>("an f32"));
      return read;
    case Bool:
      read.value = read_bool(cursor, key);
      return read;
    case String:
      read.value = cursor.string("a string");
      return read;
    case Array:
      read_array(cursor, key, read);
      return read;
    case U64:
      read.value = cursor.number<uint64_t>("a u64");
      return read;
    case I64:
      read.value = cursor.number<int64_t>("an i64");
      return read;
    case F64:
      read.value = cursor.number<double>("an f64");
      return read;
  }
  fail(code::file_format, cursor.path(), ": key ", quoted(key), " at byte ", start, " has type ", read.type,
       ", expected 0 to 12");
}

void append_gguf_value(std::string& bytes, const std::string& key, const GgufValue& value) {
  append_number(bytes, value.type);
  switch (value.type) {
    case U8:
      return append_as<uint8_t>(bytes, key, held<uint64_t>(key, value));
    case I8:
      return append_as<int8_t>(bytes, key, held<int64_t>(key, value));
    case U16:
      return append_as<uint16_t>(bytes, key, held<uint64_t>(key, value));
    case I16:
      return append_as<int16_t>(bytes, key, held<int64_t>(key, value));
    case U32:
      return append_as<uint32_t>(bytes, key, held<uint64_t>(key, value));
    case I32:
      return append_as<int32_t>(bytes, key, held<int64_t>(key, value));
    case F32:
      return append_as<float>(bytes, key, held<double>(key, value));
    case Bool:
      return append_as<uint8_t>(bytes, key, held<bool>(key, value));
    case String:
      return append_gguf_string(bytes, held<std::string>(key, value));
    case Array:
      return append_array(bytes, key, value);
    case U64:
      return append_as<uint64_t>(bytes, key, held<uint64_t>(key, value));
    case I64:
      return append_as<int64_t>(bytes, key, held<int64_t>(key, value));
    case F64:
      return append_as<double>(bytes, key, held<double>(key, value));
  }
  fail(code::argument, "key ", quoted(key), " has type ", value.type, ", expected 0 to 12");
}

}  // namespace minigpt4
