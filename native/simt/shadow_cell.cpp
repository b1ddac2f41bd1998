#include "simt/shadow_cell.h"

#include <cstring>

namespace minigpt4::simt {

void WarpOrder::synced(uint32_t mask, uint32_t present) {
  ++clock_;
  if ((mask & present) == present) {
    all_ = clock_;
    return;
  }
  if (!some_) std::memset(pairs_, 0, sizeof pairs_);
  some_ = true;
  for (unsigned a = 0; a < 32; ++a) {
    if (!(mask >> a & 1)) continue;
    for (unsigned b = 0; b < 32; ++b)
      if (mask >> b & 1) pairs_[a][b] = clock_;
  }
}

}  // namespace minigpt4::simt
