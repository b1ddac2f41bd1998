// Pillow's bicubic resampling, bit for bit, and CLIP's normalisation.
#pragma once

#include <cstdint>
#include <vector>

namespace minigpt4 {

/// RGB bytes [height, width, 3] to [size_y, size_x, 3], aspect ratio ignored: antialiased cubic (a = -0.5), a
/// horizontal then a vertical pass with 22-bit fixed-point coefficients, each rounded and clamped to 0..255; an axis
/// whose size stays has no pass. Equal in every byte to Image.resize(BICUBIC) of Pillow up to 12, which the models were
/// trained with (Pillow 13 swaps the passes for pictures whose height shrinks much more than their width). Memory
/// beside the result does not grow with the picture's area. Errors: ERR_IMAGE (a side below 1, or beyond what fits
/// memory).
std::vector<uint8_t> resize_bicubic(const uint8_t* rgb, int width, int height, int size_x, int size_y);

/// planes[3, size, size] = (rgb[y, x, c] / 255 - mean[c]) / std[c].
void normalise(float* planes, const uint8_t* rgb, int size, const float mean[3], const float std[3]);

}  // namespace minigpt4
