#include "simt/shadow_range.h"

#include <algorithm>

namespace minigpt4::simt {

Mark ShadowRange::touch(const Actor& actor, size_t offset, size_t bytes, uint8_t kind, uint32_t site,
                        uint32_t horizon) {
  Mark found;
  const Mark now = mark_of(actor, kind, site);
  const size_t end = offset + bytes;
  while (offset < end) {
    std::unique_ptr<Page>& page = pages_[offset / page_bytes];
    if (!page) page = std::make_unique<Page>();
    const size_t word = offset % page_bytes / 4, from = offset % 4, to = std::min<size_t>(4, from + end - offset);
    std::unique_ptr<std::array<Cell, 4>>& parts = page->parts[word];
    if (!parts && to - from != 4) {
      parts = std::make_unique<std::array<Cell, 4>>();
      parts->fill(page->words[word]);
    }
    for (size_t part = from; part < to; ++part) {
      Cell& cell = parts ? (*parts)[part] : page->words[word];
      const Mark mark = cell.touch(actor, now, horizon);
      if (!found.kind) found = mark;
      if (!parts) break;
    }
    offset += to - from;
  }
  return found;
}

}  // namespace minigpt4::simt
