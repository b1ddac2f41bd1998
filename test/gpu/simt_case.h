// What the tests of the emulator's execution share: device memory, runs whose findings are collected, and lines of the
// planted defects.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "check.h"
#include "ops/cuda/gpu.h"
#include "simt/report.h"

namespace simt_case {

using minigpt4::simt::Finding;
using minigpt4::simt::FindingKind;
using minigpt4::simt::Options;
using minigpt4::simt::Order;

/// An array in device memory, full of 0xFF or of the values given.
template <class T>
class Device {
 public:
  explicit Device(size_t count) : count_(count) { CHECK(cudaMalloc(&data_, count * sizeof(T)) == cudaSuccess); }
  explicit Device(const std::vector<T>& values) : Device(values.size()) {
    CHECK(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(data_); }
  operator T*() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> to(count_);
    CHECK(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return to;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

/// Runs the body with findings collected instead of failing launches, and gives them.
template <class Body>
std::vector<Finding> findings_of(Options options, Body&& body) {
  minigpt4::simt::take_findings();
  options.findings_fail = false;
  minigpt4::simt::set_options(options);
  body();
  minigpt4::simt::set_options({});
  return minigpt4::simt::take_findings();
}

inline constexpr Order orders[] = {Order::fifo, Order::lifo, Order::random, Order::priority};

/// The line of `file` that ends in the comment "// here: name"; 0 where none does.
inline int line_of(const char* file, const std::string& name) {
  std::ifstream source(file);
  const std::string mark = "// here: " + name;
  std::string text;
  for (int line = 1; std::getline(source, text); ++line) {
    if (text.size() >= mark.size() && text.compare(text.size() - mark.size(), mark.size(), mark) == 0) return line;
  }
  return 0;
}

/// Empty when the findings have one of this kind at this line of this file whose text holds the words; else what they
/// have.
inline std::string missing(const std::vector<Finding>& findings, FindingKind kind, const std::string& file, int line,
                           const std::string& words) {
  std::string all;
  for (const Finding& finding : findings) {
    if (finding.kind == kind && finding.file == file && finding.line == line &&
        finding.text.find(words) != std::string::npos) {
      return "";
    }
    all += std::string(" | ") + name(finding.kind) + ": " + finding.text;
  }
  return "expected " + std::string(name(kind)) + " at line " + std::to_string(line) + " with \"" + words + "\", found" +
         (all.empty() ? " nothing" : all);
}

}  // namespace simt_case
