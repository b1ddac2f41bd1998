// Rotary positions: the turn of adjacent pairs, shared by the op alone, its gradient, and the write to the cache.
#pragma once

namespace minigpt4::cpu {

/// Turns the pairs (2i, 2i + 1), i < half, of H heads by `angles` [half][2] (cosine, sine), or back if direction is -1.
inline void turn_heads(float* x, const float* angles, int H, int D, int half, float direction) {
  for (int h = 0; h < H; ++h, x += D) {
    for (int i = 0; i < 2 * half; i += 2) {
      const float a = x[i], b = x[i + 1], c = angles[i], s = direction * angles[i + 1];
      x[i] = a * c - b * s;
      x[i + 1] = a * s + b * c;
    }
  }
}

}  // namespace minigpt4::cpu
