// Who holds what, alignment, limits.
#include "core/arena.h"

#include <cstdint>
#include <cstring>

#include "check.h"

using namespace minigpt4;

namespace {

Holding of(const std::vector<Holding>& all, const std::string& owner) {
  for (const Holding& each : all) {
    if (each.owner == owner) return each;
  }
  fail(code::internal, "no holding of ", owner);
}

}  // namespace

TEST("arena: pieces are aligned, usable and counted by owner") {
  Arena arena;
  std::vector<void*> pieces;
  for (const size_t bytes : {size_t(0), size_t(1), size_t(63), size_t(4096), size_t(9) << 20}) {
    void* const piece = arena.take(bytes, bytes > 64 ? "large" : "small");
    CHECK(piece != nullptr && reinterpret_cast<uintptr_t>(piece) % 64 == 0);
    std::memset(piece, 7, bytes);
    pieces.push_back(piece);
  }
  const size_t large = 4096 + (size_t(9) << 20);
  CHECK_EQUAL(of(arena.holdings(), "small").bytes, 64u);
  CHECK_EQUAL(of(arena.holdings(), "small").pieces, 3u);
  CHECK_EQUAL(of(arena.holdings(), "large").bytes, large);
  CHECK_EQUAL(arena.held(), large + 64);
  for (void* piece : pieces) arena.give(piece);
  arena.give(nullptr);
  CHECK_EQUAL(arena.held(), 0u);
  CHECK_EQUAL(arena.peak(), large + 64);
  CHECK_EQUAL(of(arena.holdings(), "large").pieces, 0u);
  CHECK_EQUAL(of(arena.holdings(), "large").peak, large);
}

TEST("arena: what does not fit is an error that says who asked") {
  Arena arena;
  arena.set_limit(1000);
  void* const piece = arena.take(600, "kv cache");
  CHECK_ERROR(code::out_of_memory, "activations needs 401 bytes, but 600 bytes of the 1000",
              arena.take(401, "activations"));
  CHECK_ERROR(code::out_of_memory, "kv cache", arena.take(SIZE_MAX, "kv cache"));
  arena.give(piece);
  arena.give(arena.take(1000, "activations"));
  arena.set_limit(0);
  CHECK_ERROR(code::out_of_memory, "the system does not give them", arena.take(SIZE_MAX / 2, "kv cache"));
  CHECK_EQUAL(arena.held(), 0u);
}
