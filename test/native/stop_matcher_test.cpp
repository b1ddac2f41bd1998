// Stop strings in streams: across borders, overlapping, held back and given free again.
#include "text/stop_matcher.h"

#include "check.h"

using namespace minigpt4;

namespace {

struct Outcome {
  std::string text;
  bool stopped;
  bool operator==(const Outcome&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << '"' << outcome.text << "\" " << (outcome.stopped ? "stopped" : "open");
}

/// Streams text in pieces of `size` bytes.
Outcome stream(const std::vector<std::string>& stops, const std::string& text, size_t size) {
  StopMatcher matcher(stops);
  Outcome outcome{"", false};
  for (size_t at = 0; at < text.size(); at += size) outcome.text += matcher.push(text.substr(at, size));
  outcome.text += matcher.finish();
  outcome.stopped = matcher.stopped();
  return outcome;
}

}  // namespace

TEST("stop matcher: the result does not depend on the cuts") {
  struct Case {
    std::vector<std::string> stops;
    std::string text;
    Outcome expected;
  };
  const Case cases[] = {
      {{"###"}, "A dog.###Human", {"A dog.", true}},
      {{"###"}, "A #dog## runs", {"A #dog## runs", false}},
      {{"###"}, "####", {"", true}},
      {{"###"}, "ends with ##", {"ends with ##", false}},
      {{"aab"}, "aaaab!", {"aa", true}},  // falls back within the stop string
      {{"abcabd"}, "abcabcabd", {"abc", true}},
      {{"abc", "b"}, "xabc", {"xa", true}},  // the one that is complete first
      {{"b", "ab"}, "xab", {"x", true}},     // both complete at once: the longest
      {{"b", ""}, "xyz", {"xyz", false}},    // empty ones are ignored
      {{}, "xyz", {"xyz", false}},
      {{"\n\n", "</s>"}, "one\ntwo</s>three\n\n", {"one\ntwo", true}},
      {{"日本"}, "東日日本", {"東日", true}},
  };
  for (const Case& each : cases) {
    for (size_t size = 1; size <= each.text.size(); ++size)
      CHECK_EQUAL(stream(each.stops, each.text, size), each.expected);
  }
}

TEST("stop matcher: holds back no more than may become a stop") {
  StopMatcher matcher({"###", "STOP"});
  CHECK_EQUAL(matcher.push("text #"), "text ");
  CHECK_EQUAL(matcher.push("#"), "");
  CHECK_EQUAL(matcher.push(" and ST"), "## and ");
  CHECK(!matcher.stopped());
  CHECK_EQUAL(matcher.push("OPped"), "");
  CHECK(matcher.stopped());
  CHECK_EQUAL(matcher.push("more"), "");
  CHECK_EQUAL(matcher.finish(), "");
}

TEST("stop matcher: what was held back comes out at the end") {
  StopMatcher matcher({"###"});
  CHECK_EQUAL(matcher.push("a##"), "a");
  CHECK_EQUAL(matcher.finish(), "##");
  CHECK_EQUAL(matcher.finish(), "");
}
