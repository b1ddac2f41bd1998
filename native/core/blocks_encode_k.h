// Encoders of the super-blocks of 256 values.
#pragma once

#include <cstdint>

namespace minigpt4 {

/// x[256] into one block of 144, 176 or 210 bytes.
void encode_q4_k(const float* x, uint8_t* block);
void encode_q5_k(const float* x, uint8_t* block);
void encode_q6_k(const float* x, uint8_t* block);

}  // namespace minigpt4
