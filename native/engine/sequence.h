// One conversation's place in the cache: what it holds at each position, and in which pages.
#pragma once

#include <vector>

#include "engine/kv_pages.h"
#include "engine/prompt.h"

namespace minigpt4 {

class Sequence {
 public:
  explicit Sequence(KvPagePool& pool) : pool_(pool) {}
  ~Sequence() { truncate(0); }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  int length() const { return int(slots_.size()); }
  const Prompt& slots() const { return slots_; }
  const std::vector<int32_t>& pages() const { return pages_; }

  /// Forgets all positions from `length` on; pages no longer needed go back.
  void truncate(int length);
  /// Takes over the first `positions` of another sequence, whole pages only, without copying. This one must be empty.
  void share_prefix(const Sequence& other, int positions);
  /// A page copy that must be done before writing: the page is shared and would be written to.
  struct Copy {
    int to, from;
  };
  /// Makes room for `count` positions more (their slots are appended by `append`). False, and nothing changed, when the
  /// pool has too few pages. `copies` receives page copies to be done in every layer first.
  bool reserve(int count, std::vector<Copy>& copies);
  /// The next position's contents; room must be reserved.
  void append(const Slot& slot) { slots_.push_back(slot); }

 private:
  KvPagePool& pool_;
  Prompt slots_;
  std::vector<int32_t> pages_;
};

}  // namespace minigpt4
