// The pages of the KV cache and how many sequences hold each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/ops.h"

namespace minigpt4 {

class KvPagePool {
 public:
  explicit KvPagePool(int pages);
  /// A free page, held once. -1: none is left.
  int take();
  /// One more holder of a page.
  void share(int page);
  /// One holder fewer; the last one frees the page.
  void give(int page);
  bool is_shared(int page) const { return holders_[std::size_t(page)] > 1; }
  int free_pages() const { return int(free_.size()); }
  int pages() const { return int(holders_.size()); }

 private:
  std::vector<int> holders_;  // by page
  std::vector<int> free_;     // a stack: the page given back last is warm in the cache
};

}  // namespace minigpt4
