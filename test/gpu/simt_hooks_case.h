// What the tests of the emulator's checker share beside simt_case.h: random numbers, and lines of kernels by their marks.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "../native/check.h"
#include "core/error.h"
#include "simt/report.h"
#include "simt_case.h"
#include "simt_kernels/simt_kernels.h"

namespace planted {

namespace simt = minigpt4::simt;
using simt::Finding;
using simt::FindingKind;
using simt::Order;

using simt_case::Device;
using simt_case::findings_of;

inline std::vector<float> random_floats(size_t count, uint64_t seed) {
  std::vector<float> values(count);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (float& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = float(int32_t(state >> 33) % 2001 - 1000) / 1000;
  }
  return values;
}

/// The same in the usual order of threads.
template <class Body>
std::vector<Finding> findings_of(Body&& body) {
  return findings_of(simt::Options{}, body);
}

/// The line of simt_kernels/`file` that carries the comment "role: … name …".
inline int line_of(const std::string& file, const std::string& role, const std::string& name) {
  const std::string here = __FILE__;
  std::ifstream source(here.substr(0, here.rfind('/') + 1) + "simt_kernels/" + file);
  std::string text;
  for (int line = 1; std::getline(source, text); ++line) {
    const size_t at = text.find("// " + role + ":");
    if (at != std::string::npos && (text.substr(at) + " ").find(" " + name + " ") != std::string::npos) return line;
  }
  minigpt4::fail(minigpt4::code::argument, "no line of ", file, " is marked '", role, ": ", name, "'");
}

/// Empty if a finding of the kind stands at the line and says `words`; else what was found.
inline std::string lacks(const std::vector<Finding>& findings, FindingKind kind, const std::string& file, int line,
                         const std::string& words = "") {
  std::string all;
  for (const Finding& finding : findings) {
    if (finding.kind == kind && finding.file.ends_with("simt_kernels/" + file) && finding.line == line &&
        finding.text.find(words) != std::string::npos) {
      return "";
    }
    all += "\n    [" + std::string(name(finding.kind)) + "] " + finding.text;
  }
  return "expected [" + std::string(name(kind)) + "] at " + file + ":" + std::to_string(line) + " with '" + words +
         "', found " + (all.empty() ? "nothing" : all);
}
#define CHECK_FOUND(...) CHECK_EQUAL(lacks(__VA_ARGS__), std::string())

inline std::string place(const std::string& file, int line) { return file + ":" + std::to_string(line); }

inline gpu::Launch how(dim3 grid, dim3 block, size_t shared = 0) { return {grid, block, shared}; }

/// The greatest error over the greatest value.
template <Defect defect>
double matmul_error(int M, int N, int K) {
  std::vector<gpu::bf16> a, b;
  for (const float value : random_floats(size_t(M) * K, 2)) a.push_back(gpu::to_bf16(value));
  for (const float value : random_floats(size_t(N) * K, 3)) b.push_back(gpu::to_bf16(value));
  const Device<gpu::bf16> da(a), db(b);
  const Device<float> y{size_t(M) * N};
  (void)gpu::launch(matmul<defect>, how(dim3(N / 32, M / 32), 128), y, da, db, N, K);
  const std::vector<float> found = y.values();
  double worst = 0, greatest = 0;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      double sum = 0;
      for (int k = 0; k < K; ++k) {
        sum += double(gpu::to_float(a[size_t(m) * K + k])) * gpu::to_float(b[size_t(n) * K + k]);
      }
      const float value = found[size_t(m) * N + n];
      greatest = std::fmax(greatest, std::fabs(sum));
      worst = std::fmax(worst, std::isnan(value) ? INFINITY : std::fabs(value - sum));
    }
  }
  return worst / greatest;
}

}  // namespace planted
