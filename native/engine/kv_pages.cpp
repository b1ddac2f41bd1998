#include "engine/kv_pages.h"

namespace minigpt4 {

KvPagePool::KvPagePool(int pages) : holders_(std::size_t(pages), 0) {
  for (int page = pages; page-- > 0;) free_.push_back(page);
}

int KvPagePool::take() {
  if (free_.empty()) return -1;
  const int page = free_.back();
  free_.pop_back();
  holders_[std::size_t(page)] = 1;
  return page;
}

void KvPagePool::share(int page) { ++holders_[std::size_t(page)]; }

void KvPagePool::give(int page) {
  if (--holders_[std::size_t(page)] == 0) free_.push_back(page);
}

}  // namespace minigpt4
