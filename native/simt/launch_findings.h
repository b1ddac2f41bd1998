// Counts what is found while it lives, on its host thread: whether one launch, or one call of the runtime, is sound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace minigpt4::simt {

class LaunchFindings {
 public:
  LaunchFindings();
  ~LaunchFindings();
  LaunchFindings(const LaunchFindings&) = delete;
  LaunchFindings& operator=(const LaunchFindings&) = delete;

  uint64_t count = 0;
  std::vector<std::string> texts;  // of those not seen before

 private:
  LaunchFindings* outer_;
};

}  // namespace minigpt4::simt
