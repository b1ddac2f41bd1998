#include "simt/shadow_space.h"

// The program's or library's first and last byte, set by the linker.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start[];
extern "C" __attribute__((visibility("hidden"))) const char _end[];

namespace minigpt4::simt::shadow {
namespace {

bool between(const void* p, const void* begin, const void* end) {
  return uintptr_t(p) >= uintptr_t(begin) && uintptr_t(p) < uintptr_t(end);
}

std::string described(const SharedSlot& slot) {
  std::string text = std::to_string(slot.bytes) + " bytes of ";
  text += slot.key ? std::string("'") + slot.name + "'" : "a part of dynamic shared memory";
  if (slot.site.file) text += " (" + std::string(slot.site.file) + ":" + std::to_string(slot.site.line) + ")";
  return text;
}

}  // namespace

Space space_of(const Context& thread, const void* address) {
  if (between(address, thread.stack_begin, thread.stack_end)) return Space::stack;
  if (between(address, thread.block->arena_begin, thread.block->arena_end)) return Space::shared;
  if (find_allocation(address)) return Space::global;
  if (all_stacks().holds(address)) return Space::other_stack;
  if (between(address, __ehdr_start, _end)) return Space::image;
  return Space::nowhere;
}

std::string misses_shared(const BlockInfo& block, const void* address, size_t bytes) {
  const std::byte* at = static_cast<const std::byte*>(address);
  const SharedSlot *below = nullptr, *above = nullptr;
  for (const SharedSlot& slot : block.slots) {
    if (at < slot.begin) {
      if (!above || slot.begin < above->begin) above = &slot;
      continue;
    }
    if (at + bytes <= slot.begin + slot.bytes) return "";
    if (!below || slot.begin > below->begin) below = &slot;
  }
  if (below && at < below->begin + below->bytes) return "begins in and reaches beyond the " + described(*below);
  const auto behind = below ? at - (below->begin + below->bytes) : 0;
  const auto before = above ? above->begin - at : 0;
  if (below && (!above || behind < before)) {
    return "lies " + std::to_string(behind) + " bytes behind the " + described(*below);
  }
  if (above) return "lies " + std::to_string(before) + " bytes before the " + described(*above);
  return "lies in shared memory of which the block has none";
}

std::string misses_global(const void* address, size_t bytes) {
  const std::byte* at = static_cast<const std::byte*>(address);
  if (at == nullptr) return "has the address null";
  constexpr ptrdiff_t near = 64 * 1024;
  const DeviceAllocation *below = allocation_below(at), *above = allocation_below(at + near);
  if (above == below) above = nullptr;
  while (above) {  // the first that begins behind the address
    const DeviceAllocation* before = allocation_below(above->begin - 1);
    if (before == below) break;
    above = before;
  }
  const ptrdiff_t behind = below ? at - (below->begin + below->bytes) : near;
  const ptrdiff_t before = above ? above->begin - at : near;
  if (behind >= near && before >= near)
    return "lies in no device memory (a pointer of the host, or memory that was freed)";
  const std::string of = " an allocation of " + std::to_string((behind < before ? below : above)->bytes) + " bytes";
  if (behind < 0) return "begins in and reaches " + std::to_string(behind + ptrdiff_t(bytes)) + " bytes beyond" + of;
  if (behind < before) return "lies " + std::to_string(behind) + " bytes behind" + of;
  return "lies " + std::to_string(before) + " bytes before" + of;
}

}  // namespace minigpt4::simt::shadow
