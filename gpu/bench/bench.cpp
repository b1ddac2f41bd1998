#include "bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace minigpt4::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSamples = 9;
constexpr double kSampleSeconds = 0.02;  // long beside the some 10 us that waiting for a device takes
constexpr double kRecordSeconds = 0.001;
constexpr int kMostRecorded = 256;  // bodies in one record

[[noreturn]] void refuse(const std::string& sentence) {
  std::fprintf(stderr, "%s\n", sentence.c_str());
  std::exit(2);
}

double positive(const std::string& option, const char* text) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (*end || !(value > 0)) refuse(option + ": expected a rate above 0, found \"" + text + "\"");
  return value;
}

}  // namespace

Settings read_settings(int count, char** arguments, const char* usage) {
  Settings settings;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const auto value = [&]() -> const char* {
      if (++i >= count) refuse(argument + ": expected a value after it, found nothing");
      return arguments[i];
    };
    if (argument == "--help") {
      std::fputs(usage, stdout);
      std::exit(0);
    } else if (argument == "--device") {
      settings.device = value();
    } else if (argument == "--copy") {
      settings.copy = positive(argument, value());
    } else if (argument == "--matrix") {
      settings.matrix = positive(argument, value());
    } else if (argument == "--tiny") {
      settings.tiny = true;
    } else if (argument.rfind("--", 0) == 0) {
      refuse(argument + ": there is no such option\n" + usage);
    } else {
      settings.word = argument;
    }
  }
  return settings;
}

Bench::Bench(const Settings& settings) : settings_(settings) {
  DeviceOptions options;
  options.device = settings.device;
  ops_ = make_ops(options);
  mark_ = Buffer<float>(*ops_, 1, "bench");
  const float zero = 0;
  ops_->upload(mark_, &zero, sizeof zero);
  std::printf("{\"device\": \"%s\", \"copy\": %g, \"matrix\": %g}\n", ops_->describe().c_str(), settings.copy,
              settings.matrix);
}

void Bench::finish() {
  float value = 0;
  ops_->download(&value, mark_, sizeof value);
}

double Bench::seconds_of(int count, const std::function<void(int)>& body) {
  const auto began = Clock::now();
  for (int i = 0; i < count; ++i) body(i);
  finish();
  return std::chrono::duration<double>(Clock::now() - began).count() / count;
}

/// Of samples of some 20 ms of a body that takes about `first` seconds.
double Bench::median_of(double first, const std::function<void(int)>& body) {
  const int repeats = std::clamp(int(kSampleSeconds / first), 1, 1000);
  std::vector<double> samples;
  for (int i = 0; i < kSamples; ++i) samples.push_back(seconds_of(repeats, body));
  std::nth_element(samples.begin(), samples.begin() + kSamples / 2, samples.end());
  return samples[kSamples / 2];
}

void Bench::time_recorded(const std::string& name, const Work& work, const std::function<void(int)>& body, Rate rate) {
  int count = 1;
  if (!tiny()) {
    seconds_of(3, body);
    count = std::clamp(int(kRecordSeconds / std::max(1e-7, seconds_of(4, body))) + 1, 1, kMostRecorded);
  }
  const uint64_t key = new_key();
  const auto repeat = [&](int) {
    ops_->replay(key, [&] {
      for (int i = 0; i < count; ++i) body(i);
    });
  };
  seconds_of(2, repeat);  // runs, then is recorded
  const double first = seconds_of(1, repeat);
  tell(name, work, (tiny() ? first : median_of(first, repeat)) / count, rate);
}

void Bench::time_whole(const std::string& name, const Work& work, const std::function<void(int)>& body, Rate rate) {
  seconds_of(2, body);  // what it replays runs, then is recorded
  const double first = seconds_of(1, body);
  tell(name, work, tiny() ? first : median_of(first, body), rate);
}

void Bench::tell(const std::string& name, const Work& work, double seconds, Rate rate) {
  const double floor = std::max(work.bytes / settings_.copy, work.operations / settings_.matrix);
  std::printf("{\"name\": \"%s\", \"us\": %.3f", name.c_str(), seconds * 1e6);
  if (rate.name) std::printf(", \"%s\": %.2f", rate.name, rate.count / seconds);
  std::printf(", \"gb_s\": %.1f, \"tflop_s\": %.3f, \"floor_us\": %.3f, \"share\": %.4f}\n", work.bytes / seconds / 1e9,
              work.operations / seconds / 1e12, floor * 1e6, floor / seconds);
  std::fflush(stdout);
  ++told_;
}

int run(const std::function<void()>& body) {
  try {
    body();
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code(), error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}

}  // namespace minigpt4::bench
