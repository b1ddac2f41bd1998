// Pieces come from the system's aligned allocator; what is here is the bookkeeping of who holds them.
#include "core/arena.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/mman.h>

#include "core/error.h"

namespace minigpt4 {

namespace {

constexpr size_t kAlignment = 64;
// From here on a piece starts on a huge page, of which a smaller one has none.
constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kMost = size_t(1) << 46;  // more than any machine's memory

struct Free {
  void operator()(void* memory) const noexcept { std::free(memory); }
};

std::unique_ptr<void, Free> allocate(size_t bytes) {
  if (bytes > kMost) return nullptr;
  void* memory = nullptr;
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  if (posix_memalign(&memory, alignment, std::max(bytes, kAlignment)) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  if (bytes >= kHugePage) madvise(memory, bytes & ~(kHugePage - 1), MADV_HUGEPAGE);  // a wish: refusal costs speed only
#endif
  return std::unique_ptr<void, Free>(memory);
}

}  // namespace

Arena::~Arena() {
  for (const auto& [memory, piece] : pieces_) std::free(memory);
#ifdef __GLIBC__
  malloc_trim(0);  // a model is gone: glibc would keep the smaller of its pieces for the next one
#endif
}

void* Arena::take(size_t bytes, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  if (limit_ != 0 && (held_ > limit_ || bytes > limit_ - held_)) {
    fail(code::out_of_memory, owner, " needs ", bytes, " bytes, but ", held_, " bytes of the ", limit_,
         " that are allowed are held already");
  }
  std::unique_ptr<void, Free> memory = allocate(bytes);
  if (!memory) {
    fail(code::out_of_memory, owner, " needs ", bytes, " bytes, and the system does not give them; ", held_,
         " bytes are held already");
  }
  auto holding = std::find_if(owners_.begin(), owners_.end(), [&](const Holding& each) { return each.owner == owner; });
  if (holding == owners_.end()) {
    owners_.push_back({std::string(owner), 0, 0, 0});
    holding = owners_.end() - 1;
  }
  pieces_.emplace(memory.get(), Piece{bytes, size_t(holding - owners_.begin())});
  holding->bytes += bytes;
  holding->peak = std::max(holding->peak, holding->bytes);
  holding->pieces += 1;
  held_ += bytes;
  peak_ = std::max(peak_, held_);
  return memory.release();
}

void Arena::give(void* piece) noexcept {
  if (!piece) return;
  const std::lock_guard lock(mutex_);
  const auto found = pieces_.find(piece);
  if (found == pieces_.end()) return;  // not this arena's: freeing it would be worse than keeping it
  Holding& holding = owners_[found->second.owner];
  holding.bytes -= found->second.bytes;
  holding.pieces -= 1;
  held_ -= found->second.bytes;
  pieces_.erase(found);
  std::free(piece);
}

std::vector<Holding> Arena::holdings() const {
  const std::lock_guard lock(mutex_);
  return owners_;
}

size_t Arena::held() const noexcept {
  const std::lock_guard lock(mutex_);
  return held_;
}

size_t Arena::peak() const noexcept {
  const std::lock_guard lock(mutex_);
  return peak_;
}

void Arena::set_limit(size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  limit_ = bytes;
}

}  // namespace minigpt4
