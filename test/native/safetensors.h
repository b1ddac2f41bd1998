// Reads the safetensors files of the fixtures: a flat JSON header of name, dtype, shape and data_offsets. Names without
// escapes; other things in the header (__metadata__ apart) are an error, not a guess.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"

struct SafeTensor {
  std::string dtype;  // "F32", "U8", "I64"
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;
  /// The values, dtype F32 only.
  std::vector<float> floats() const {
    if (dtype != "F32") minigpt4::fail(minigpt4::code::argument, "expected an F32 tensor, found ", dtype);
    std::vector<float> values(bytes.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};

class SafeTensorsHeader {
 public:
  SafeTensorsHeader(const std::string& text, const std::string& path) : text_(text), path_(path) {}

  /// Calls tensor(name, dtype, shape, begin, end) for each.
  template <class Tensor>
  void read(Tensor&& tensor) {
    take('{');
    if (peek() == '}') return;
    do {
      const std::string name = string();
      take(':');
      if (name == "__metadata__") {
        members([&](const std::string&) { string(); });
        continue;
      }
      std::string dtype;
      std::vector<uint64_t> shape, offsets;
      members([&](const std::string& member) {
        if (member == "dtype")
          dtype = string();
        else if (member == "shape")
          shape = numbers();
        else if (member == "data_offsets")
          offsets = numbers();
        else
          wrong("dtype, shape or data_offsets");
      });
      if (offsets.size() != 2) wrong("two data_offsets");
      tensor(name, dtype, shape, offsets[0], offsets[1]);
    } while (more('}'));
  }

 private:
  const std::string& text_;
  const std::string& path_;
  size_t at_ = 0;

  [[noreturn]] void wrong(const std::string& expected) {
    minigpt4::fail(minigpt4::code::file_format, path_, ": expected ", expected, " at byte ", at_, " of the header");
  }
  char peek() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void take(char expected) {
    if (peek() != expected) wrong(std::string(1, expected));
    ++at_;
  }
  /// After an element: true at a comma, false at `end`.
  bool more(char end) {
    if (peek() == ',') return ++at_, true;
    take(end);
    return false;
  }
  std::string string() {
    take('"');
    const size_t end = text_.find_first_of("\"\\", at_);
    if (end == std::string::npos || text_[end] == '\\') wrong("a string without escapes");
    const std::string found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }
  template <class Member>
  void members(Member&& member) {
    take('{');
    if (peek() == '}') return void(++at_);
    do {
      const std::string name = string();
      take(':');
      member(name);
    } while (more('}'));
  }
  std::vector<uint64_t> numbers() {
    std::vector<uint64_t> all;
    take('[');
    if (peek() == ']') return ++at_, all;
    do {
      if (peek() < '0' || peek() > '9') wrong("a number");
      uint64_t value = 0;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        value = value * 10 + uint64_t(text_[at_] - '0');
      all.push_back(value);
    } while (more(']'));
    return all;
  }
};

inline std::map<std::string, SafeTensor> read_safetensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) minigpt4::fail(minigpt4::code::file_not_found, "no such file: ", path);
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  uint64_t length = 0;
  if (all.size() >= sizeof length) std::memcpy(&length, all.data(), sizeof length);
  if (all.size() < sizeof length || length > all.size() - sizeof length) {
    minigpt4::fail(minigpt4::code::file_format, path, " is no safetensors file: its header of ", length,
                   " bytes does not fit");
  }
  const std::string header = all.substr(sizeof length, length);
  const size_t start = sizeof length + length;
  std::map<std::string, SafeTensor> tensors;
  SafeTensorsHeader(header, path)
      .read([&](const std::string& name, const std::string& dtype, const std::vector<uint64_t>& shape, uint64_t begin,
                uint64_t end) {
        if (begin > end || end > all.size() - start) {
          minigpt4::fail(minigpt4::code::file_format, path, ": the data of ", name, " is not in the file");
        }
        SafeTensor& tensor = tensors[name];
        tensor.dtype = dtype;
        tensor.shape = shape;
        tensor.bytes.resize(end - begin);
        if (end > begin) std::memcpy(tensor.bytes.data(), all.data() + start + begin, end - begin);
      });
  return tensors;
}
