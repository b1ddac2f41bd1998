// A small test harness: TEST(name) { CHECK(...); } in any *_test.cpp, run by main.cpp.
#pragma once

#include <cmath>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace check {

struct Test {
  const char* name;
  std::function<void()> body;
};
std::vector<Test>& tests();
struct Registration {
  Registration(const char* name, std::function<void()> body) { tests().push_back({name, std::move(body)}); }
};
/// Run after every test's body, however it ended; failures they record are that test's.
std::vector<std::function<void()>>& after_each();
/// Records a failure of the running test.
void failed(const char* file, int line, const std::string& what);
/// Failures of the running test so far.
int failures();
/// Ends the running test and counts it as skipped, with the reason printed.
struct Skip {
  std::string reason;
};
/// Path of a file under test/fixtures.
std::string fixture(const std::string& name);

/// True if body throws minigpt4::Error with this code and a message that contains `words`.
template <class Body>
std::string error_of(const char* code, const std::string& words, Body&& body) {
  try {
    body();
  } catch (const minigpt4::Error& error) {
    if (std::string(error.code()) != code) return std::string("code ") + error.code() + ": " + error.what();
    if (std::string(error.what()).find(words) == std::string::npos) return std::string("message: ") + error.what();
    return "";
  }
  return "nothing was thrown";
}

}  // namespace check

#define CHECK_JOIN2(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN2(a, b)
#define TEST(name)                                                                                         \
  static void CHECK_JOIN(test_, __LINE__)();                                                               \
  static const check::Registration CHECK_JOIN(registration_, __LINE__)(name, CHECK_JOIN(test_, __LINE__)); \
  static void CHECK_JOIN(test_, __LINE__)()
#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) check::failed(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQUAL(found, expected)                                         \
  do {                                                                       \
    const auto found_ = (found);                                             \
    const auto expected_ = (expected);                                       \
    if (!(found_ == expected_)) {                                            \
      std::ostringstream text_;                                              \
      text_ << #found << ": found " << found_ << ", expected " << expected_; \
      check::failed(__FILE__, __LINE__, text_.str());                        \
    }                                                                        \
  } while (0)
#define CHECK_NEAR(found, expected, allowed)                                                           \
  do {                                                                                                 \
    const double found_ = (found), expected_ = (expected), allowed_ = (allowed);                       \
    if (!(std::fabs(found_ - expected_) <= allowed_)) {                                                \
      std::ostringstream text_;                                                                        \
      text_ << #found << ": found " << found_ << ", expected " << expected_ << " within " << allowed_; \
      check::failed(__FILE__, __LINE__, text_.str());                                                  \
    }                                                                                                  \
  } while (0)
/// The statement throws Error{code} whose message contains words.
#define CHECK_ERROR(code, words, ...)                                                                  \
  do {                                                                                                 \
    const std::string found_ = check::error_of(code, words, [&] { __VA_ARGS__; });                     \
    if (!found_.empty())                                                                               \
      check::failed(__FILE__, __LINE__,                                                                \
                    #__VA_ARGS__ ": expected " + std::string(code) + " \"" + words + "\", " + found_); \
  } while (0)
