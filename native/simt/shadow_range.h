// The shadow of a range of memory: cells for whole words, and for single bytes in words that are written in parts. Made page
// by page as it is touched, so that memory no kernel looks at costs nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "simt/shadow_cell.h"

namespace minigpt4::simt {

class ShadowRange {
 public:
  explicit ShadowRange(size_t bytes) : pages_((bytes + page_bytes - 1) / page_bytes) {}

  /// Notes an access of [offset, offset + bytes) and returns the first mark it is unordered with (kind == 0: none).
  Mark touch(const Actor& actor, size_t offset, size_t bytes, uint8_t kind, uint32_t site, uint32_t horizon);

 private:
  static constexpr size_t page_bytes = 1024;
  struct Page {
    Cell words[page_bytes / 4];
    std::unique_ptr<std::array<Cell, 4>> parts[page_bytes / 4];  // once a word was touched in parts
  };
  std::vector<std::unique_ptr<Page>> pages_;
};

}  // namespace minigpt4::simt
