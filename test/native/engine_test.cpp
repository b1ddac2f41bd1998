// The cache's bookkeeping: pages, sequences that share them, prompts that begin alike.
#include "check.h"
#include "engine/kv_pages.h"
#include "engine/prompt.h"
#include "engine/sequence.h"
#include "ops/ops.h"

using namespace minigpt4;

namespace {

Image picture(float value) {
  auto image = std::make_shared<ImageTokens>();
  image->tokens = 3;
  image->width = 2;
  image->values.assign(6, value);
  return image;
}

Prompt numbered(int from, int to) {
  Prompt prompt;
  for (int id = from; id < to; ++id) prompt.push_back({id, 0, nullptr});
  return prompt;
}

void fill(Sequence& sequence, const Prompt& prompt) {
  std::vector<Sequence::Copy> copies;
  CHECK(sequence.reserve(int(prompt.size()), copies));
  for (const Slot& slot : prompt) sequence.append(slot);
}

}  // namespace

TEST("engine: a page is free again when its last holder gives it back") {
  KvPagePool pool(2);
  const int a = pool.take(), b = pool.take();
  CHECK(a != b);
  CHECK_EQUAL(pool.take(), -1);
  pool.share(a);
  CHECK(pool.is_shared(a));
  pool.give(a);
  CHECK_EQUAL(pool.free_pages(), 0);
  CHECK(!pool.is_shared(a));
  pool.give(a);
  CHECK_EQUAL(pool.free_pages(), 1);
  CHECK_EQUAL(pool.take(), a);
}

TEST("engine: prompts are alike as far as tokens and pictures are") {
  Prompt a = numbered(0, 5), b = numbered(0, 5);
  append_image(a, picture(1));
  append_image(b, picture(1));  // encoded again: other object, same values
  append_tokens(a, {7});
  append_tokens(b, {8});
  CHECK_EQUAL(common_prefix(a, b), 8);
  Prompt c = numbered(0, 5);
  append_image(c, picture(2));
  CHECK_EQUAL(common_prefix(a, c), 5);
  CHECK_EQUAL(common_prefix(a, numbered(0, 5)), 5);
  CHECK_EQUAL(common_prefix(a, {}), 0);
}

TEST("engine: a sequence takes pages as it grows and returns them when cut") {
  KvPagePool pool(4);
  Sequence sequence(pool);
  fill(sequence, numbered(0, kPagePositions + 1));
  CHECK_EQUAL(pool.free_pages(), 2);
  sequence.truncate(kPagePositions);
  CHECK_EQUAL(pool.free_pages(), 3);
  CHECK_EQUAL(sequence.length(), kPagePositions);
  std::vector<Sequence::Copy> copies;
  CHECK(!sequence.reserve(4 * kPagePositions, copies));  // one more page than there is
  CHECK_EQUAL(pool.free_pages(), 3);                     // and nothing was taken
  CHECK(sequence.reserve(3 * kPagePositions, copies));
  sequence.truncate(0);
  CHECK_EQUAL(pool.free_pages(), 4);
}

TEST("engine: a beginning is shared by whole pages and copied before it is written to") {
  KvPagePool pool(8);
  Sequence first(pool), second(pool);
  fill(first, numbered(0, 3 * kPagePositions));
  second.share_prefix(first, 2 * kPagePositions + 5);
  CHECK_EQUAL(second.length(), 2 * kPagePositions);
  CHECK_EQUAL(pool.free_pages(), 5);
  CHECK_EQUAL(second.pages()[0], first.pages()[0]);

  // growing past whole shared pages copies nothing
  std::vector<Sequence::Copy> copies;
  CHECK(second.reserve(1, copies));
  CHECK(copies.empty());
  // the first sequence goes back into a shared page: it gets a page of its own, the second keeps the old one
  const int old_page = first.pages()[1];
  first.truncate(kPagePositions + 3);
  CHECK(first.reserve(1, copies));
  CHECK_EQUAL(copies.size(), size_t(1));
  CHECK_EQUAL(copies[0].from, old_page);
  CHECK_EQUAL(copies[0].to, first.pages()[1]);
  CHECK(first.pages()[1] != old_page);
  CHECK_EQUAL(second.pages()[1], old_page);
  first.truncate(0);
  second.truncate(0);
  CHECK_EQUAL(pool.free_pages(), 8);
}

TEST("engine: what was guessed wrong leaves neither slots nor pages, and no shared page") {
  KvPagePool pool(6);
  Sequence first(pool), second(pool);
  fill(first, numbered(0, 2 * kPagePositions - 1));
  second.share_prefix(first, 2 * kPagePositions - 1);
  CHECK_EQUAL(second.length(), kPagePositions);
  // the last token and guesses, room for which is asked for one after the other
  std::vector<Sequence::Copy> copies;
  CHECK(first.reserve(1, copies));
  const int free = pool.free_pages();
  CHECK(first.reserve(1 + 16, copies));
  CHECK(copies.empty());  // shared is the whole page before
  CHECK_EQUAL(pool.free_pages(), free - 1);
  for (const Slot& slot : numbered(100, 117)) first.append(slot);
  // the first two were right
  first.truncate(2 * kPagePositions - 1 + 3);
  CHECK_EQUAL(first.length(), 2 * kPagePositions + 2);
  CHECK_EQUAL(first.slots().back().id, 102);
  CHECK_EQUAL(pool.free_pages(), free - 1);
  // none were: the page that they went over into is free again
  first.truncate(2 * kPagePositions - 1 + 1);
  CHECK_EQUAL(pool.free_pages(), free);
  CHECK_EQUAL(second.length(), kPagePositions);
  CHECK_EQUAL(second.pages()[0], first.pages()[0]);
  CHECK(!first.reserve(1 + 16 * 8, copies));  // more than there is: guesses must do without
  CHECK_EQUAL(pool.free_pages(), free);
}
