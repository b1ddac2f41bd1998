// A small JSON reader for the fixtures' expected.json. A missing member or another kind of value is an exception.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/utf8.h"

struct Json {
  enum class Kind { null, boolean, number, string, array, object } kind = Kind::null;
  bool flag = false;
  double real = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& name) const { return members.at(name); }
  std::vector<int32_t> integers() const {
    std::vector<int32_t> values;
    for (const Json& item : items) values.push_back(int32_t(item.real));
    return values;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : text_(text) {}

  Json read() {
    Json value = element();
    if (peek() != '\0') wrong("the end");
    return value;
  }
  static Json read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot open " + path);
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    return JsonReader(bytes).read();
  }

 private:
  const std::string& text_;
  size_t at_ = 0;

  [[noreturn]] void wrong(const std::string& expected) const {
    throw std::runtime_error("JSON: expected " + expected + " at byte " + std::to_string(at_));
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  void take(char wanted) {
    if (!accept(wanted)) wrong(std::string(1, wanted));
  }
  void word(const std::string& wanted) {
    if (text_.compare(at_, wanted.size(), wanted) != 0) wrong(wanted);
    at_ += wanted.size();
  }

  Json element() {
    Json value;
    switch (peek()) {
      case '{':
        value.kind = Json::Kind::object;
        ++at_;
        if (accept('}')) break;
        do {
          const std::string name = string();
          take(':');
          value.members[name] = element();
        } while (accept(','));
        take('}');
        break;
      case '[':
        value.kind = Json::Kind::array;
        ++at_;
        if (accept(']')) break;
        do value.items.push_back(element());
        while (accept(','));
        take(']');
        break;
      case '"':
        value.kind = Json::Kind::string;
        value.text = string();
        break;
      case 't':
        word("true");
        value.kind = Json::Kind::boolean;
        value.flag = true;
        break;
      case 'f':
        word("false");
        value.kind = Json::Kind::boolean;
        break;
      case 'n':
        word("null");
        break;
      default:
        value.kind = Json::Kind::number;
        value.real = number();
    }
    return value;
  }

  double number() {
    char* end = nullptr;
    const double value = std::strtod(text_.c_str() + at_, &end);
    if (end == text_.c_str() + at_) wrong("a value");
    at_ = size_t(end - text_.c_str());
    return value;
  }

  char32_t hex4() {
    const char32_t value = char32_t(std::stoul(text_.substr(at_, 4), nullptr, 16));
    at_ += 4;
    return value;
  }

  std::string string() {
    take('"');
    std::string value;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] != '\\') {
        value += text_[at_++];
        continue;
      }
      ++at_;
      const char escape = at_ < text_.size() ? text_[at_++] : '\0';
      const std::string from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      if (const size_t known = from.find(escape); escape != '\0' && known != std::string::npos) {
        value += to[known];
      } else if (escape == 'u') {
        char32_t point = hex4();
        if (point >= 0xD800 && point < 0xDC00) {
          at_ += 2;  // \u of the low surrogate
          point = 0x10000 + ((point - 0xD800) << 10) + (hex4() - 0xDC00);
        }
        minigpt4::append_utf8(value, point);
      } else {
        wrong("an escape");
      }
    }
    if (at_ == text_.size()) wrong("\"");
    ++at_;
    return value;
  }
};
