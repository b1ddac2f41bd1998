#include "simt/traffic_request.h"

#include <algorithm>
#include <array>

namespace minigpt4::simt {

GlobalCost global_cost(const WarpRequest& request) {
  // sixteen-byte lanes and unaligned ones touch at most two sectors each, wider accesses are noted in parts
  std::array<std::pair<uint64_t, uint32_t>, 64> pieces;  // sector, its bytes asked for as bits
  size_t count = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(request.lanes >> lane & 1)) continue;
    for (uint64_t at = request.address[lane], end = at + request.bytes; at < end;) {
      const uint64_t sector = at / 32, stop = std::min(end, (sector + 1) * 32);
      const uint64_t bits = ((uint64_t(1) << (stop - at)) - 1) << (at % 32);
      if (count && pieces[count - 1].first == sector) {
        pieces[count - 1].second |= uint32_t(bits);
      } else if (count < pieces.size()) {
        pieces[count++] = {sector, uint32_t(bits)};
      }
      at = stop;
    }
  }
  std::sort(pieces.begin(), pieces.begin() + count);
  GlobalCost cost;
  for (size_t i = 0; i < count;) {
    uint32_t bits = 0;
    const uint64_t sector = pieces[i].first;
    for (; i < count && pieces[i].first == sector; ++i) bits |= pieces[i].second;
    ++cost.sectors;
    cost.useful_bytes += uint32_t(__builtin_popcount(bits));
  }
  return cost;
}

SharedCost shared_cost(const WarpRequest& request) {
  const unsigned lanes_a_phase = request.bytes > 8 ? 8 : request.bytes > 4 ? 16 : 32;
  SharedCost cost;
  for (unsigned first = 0; first < 32; first += lanes_a_phase) {
    std::array<uint64_t, 160> words;  // 32 lanes of up to 5 words when unaligned
    size_t count = 0;
    for (unsigned lane = first; lane < first + lanes_a_phase; ++lane) {
      if (!(request.lanes >> lane & 1)) continue;
      const uint64_t at = request.address[lane], end = at + request.bytes;
      for (uint64_t word = at / 4; word * 4 < end && count < words.size(); ++word) words[count++] = word;
    }
    if (count == 0) continue;
    std::sort(words.begin(), words.begin() + count);
    count = size_t(std::unique(words.begin(), words.begin() + count) - words.begin());
    std::array<uint32_t, 32> deep{};
    for (size_t i = 0; i < count; ++i) ++deep[words[i] % 32];
    cost.wavefronts += *std::max_element(deep.begin(), deep.end());
    cost.ideal += 1;
  }
  return cost;
}

}  // namespace minigpt4::simt
