// Runs the native tests: all, or those whose name contains one of the arguments. Last line: "N passed, N failed, N skipped".
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>

#include "check.h"

namespace check {

static int failures_of_test = 0;

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

std::vector<std::function<void()>>& after_each() {
  static std::vector<std::function<void()>> all;
  return all;
}

void failed(const char* file, int line, const std::string& what) {
  ++failures_of_test;
  if (failures_of_test <= 10) std::printf("  %s:%d: %s\n", file, line, what.c_str());
}

int failures() { return failures_of_test; }

std::string fixture(const std::string& name) {
  const char* folder = std::getenv("MINIGPT4_FIXTURES");
  return std::string(folder ? folder : "test/fixtures") + "/" + name;
}

}  // namespace check

int main(int count, char** arguments) {
  int passed = 0, failed = 0, skipped = 0;
  for (const check::Test& test : check::tests()) {
    const auto named = [&](const char* word) { return std::strstr(test.name, word) != nullptr; };
    if (count > 1 && std::none_of(arguments + 1, arguments + count, named)) continue;
    check::failures_of_test = 0;
    std::optional<std::string> skip_reason;
    try {
      test.body();
    } catch (const check::Skip& skip) {
      skip_reason = skip.reason;
    } catch (const minigpt4::Error& error) {
      check::failed(__FILE__, __LINE__, std::string("unexpected ") + error.code() + ": " + error.what());
    } catch (const std::exception& error) {
      check::failed(__FILE__, __LINE__, std::string("unexpected exception: ") + error.what());
    }
    for (const auto& body : check::after_each()) body();
    if (check::failures_of_test > 0) {
      std::printf("FAILED: %s\n", test.name);
      ++failed;
    } else if (skip_reason) {
      std::printf("skipped: %s (%s)\n", test.name, skip_reason->c_str());
      ++skipped;
    } else {
      ++passed;
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 && passed > 0 ? 0 : 1;
}
