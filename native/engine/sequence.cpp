#include "engine/sequence.h"

namespace minigpt4 {
void Sequence::truncate(int length) {
  if (length < int(slots_.size())) slots_.resize(size_t(length));
  const size_t keep = size_t(pages_for(length));
  while (pages_.size() > keep) {
    pool_.give(pages_.back());
    pages_.pop_back();
  }
}

void Sequence::share_prefix(const Sequence& other, int positions) {
  const size_t whole = size_t(positions) / kPagePositions;
  for (size_t i = 0; i < whole; ++i) {
    pool_.share(other.pages_[i]);
    pages_.push_back(other.pages_[i]);
  }
  slots_.assign(other.slots_.begin(), other.slots_.begin() + std::ptrdiff_t(whole * kPagePositions));
}

bool Sequence::reserve(int count, std::vector<Copy>& copies) {
  const int length = int(slots_.size());
  const size_t needed = size_t(pages_for(length + count));
  const size_t partial = size_t(length) / kPagePositions;  // the page that the next position falls into
  const bool copy = length % kPagePositions != 0 && partial < pages_.size() && pool_.is_shared(pages_[partial]);
  const size_t fresh = (needed > pages_.size() ? needed - pages_.size() : 0) + (copy ? 1 : 0);
  if (size_t(pool_.free_pages()) < fresh) return false;
  if (copy) {
    const int page = pool_.take();
    copies.push_back({page, pages_[partial]});
    pool_.give(pages_[partial]);
    pages_[partial] = page;
  }
  while (pages_.size() < needed) pages_.push_back(pool_.take());
  return true;
}

}  // namespace minigpt4
