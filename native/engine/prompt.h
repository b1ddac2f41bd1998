// What stands at each position of a sequence: a token, or one vector of a picture.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/minigpt4.h"

namespace minigpt4 {

/// A picture in a prompt; the same picture may be held by many.
using Image = std::shared_ptr<const ImageTokens>;

/// One position. A token id, or (id -1) row `row` of an image.
struct Slot {
  int32_t id = -1;
  int32_t row = 0;
  Image image;
};

/// Same keys and values when what stands before is the same too: equal ids, or the same row of equal pictures.
bool same(const Slot& a, const Slot& b);

using Prompt = std::vector<Slot>;

void append_tokens(Prompt& prompt, const std::vector<int32_t>& ids);
void append_image(Prompt& prompt, const Image& image);
/// Positions from the start at which both are the same.
int common_prefix(const Prompt& a, const Prompt& b);

}  // namespace minigpt4
