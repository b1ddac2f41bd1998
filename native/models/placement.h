// Which part of a model a device computes and which the CPU, decided by sizes before anything is loaded.
#pragma once

#include <cstdint>
#include <optional>

#include "models/minigpt4.h"

namespace minigpt4 {

/// Pictures that are encoded at once at most: by then the products of a large GPU are as fast as they get.
inline constexpr int kMostImages = 32;

/// What the caller asks for; nothing: what fits.
struct PlacementWishes {
  std::optional<int> device_layers;      // of the language model, the last ones
  std::optional<bool> vision_on_device;  // the picture's side
  std::optional<int> images;             // that are encoded at once, kMostImages at most
  uint64_t memory = 0;                   // bytes of the device at most; 0: what it has free, less a reserve
};

/// What the language model needs beside its weights.
struct CacheWishes {
  int pages = 0;
  Type type = Type::F16;
  int max_rows = 0, max_logits = 0, max_draws = 0;  // of a pass; logits at once; draws of a pass
};

/// The language model's layers go up first, from the last one back, because a token waits for each of them; the picture's
/// side joins them where there is room for both, with as many pictures at once as half of what is left then holds: the other
/// half is for what comes later, a trainer say. Errors: ERR_ARGUMENT (more layers or pictures than there can be),
/// ERR_UNSUPPORTED (a cache of type Q8_0 for layers on a device),
/// ERR_OUT_OF_MEMORY with bytes needed, bytes free and the layers or pictures that would fit, where a wish does not, or
/// where nothing does and nothing in particular was wished.
Placement place(const ModelFiles& files, const Ops& device, const PlacementWishes& wishes, const CacheWishes& cache);

}  // namespace minigpt4
