// Block types to floats, one function a type, in the order of roundings that the format's own tools have:
// scale products first, then the quantum, then the minimum.
#include <cstring>

#include "core/block_layout.h"
#include "core/blocks.h"
#include "core/error.h"

namespace minigpt4 {

namespace {

void decode_q4_0(const uint8_t* block, float* y) {
  const float d = load_half(block);
  const uint8_t* qs = block + 2;
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(int(qs[j] & 15) - 8);
    y[j + 16] = d * float(int(qs[j] >> 4) - 8);
  }
}

void decode_q4_1(const uint8_t* block, float* y) {
  const float d = load_half(block), m = load_half(block + 2);
  const uint8_t* qs = block + 4;
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(qs[j] & 15) + m;
    y[j + 16] = d * float(qs[j] >> 4) + m;
  }
}

void decode_q5_0(const uint8_t* block, float* y) {
  const float d = load_half(block);
  const uint32_t high = load_u32(block + 2);
  const uint8_t* qs = block + 6;
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(int((qs[j] & 15) | ((high >> j) & 1) << 4) - 16);
    y[j + 16] = d * float(int((qs[j] >> 4) | ((high >> (j + 16)) & 1) << 4) - 16);
  }
}

void decode_q5_1(const uint8_t* block, float* y) {
  const float d = load_half(block), m = load_half(block + 2);
  const uint32_t high = load_u32(block + 4);
  const uint8_t* qs = block + 8;
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float((qs[j] & 15) | ((high >> j) & 1) << 4) + m;
    y[j + 16] = d * float((qs[j] >> 4) | ((high >> (j + 16)) & 1) << 4) + m;
  }
}

void decode_q8_0(const uint8_t* block, float* y) {
  const float d = load_half(block);
  for (int j = 0; j < 32; ++j) y[j] = d * float(int8_t(block[2 + j]));
}

void decode_q2_k(const uint8_t* block, float* y) {
  const uint8_t *scales = block, *qs = block + 16;
  const float d = load_half(block + 80), dmin = load_half(block + 82);
  for (int half = 0; half < 2; ++half, qs += 32) {
    for (int shift = 0; shift < 8; shift += 2) {
      for (int part = 0; part < 2; ++part) {
        const uint8_t scale = *scales++;
        const float dl = d * float(scale & 15), ml = dmin * float(scale >> 4);
        for (int l = 0; l < 16; ++l) *y++ = dl * float((qs[16 * part + l] >> shift) & 3) - ml;
      }
    }
  }
}

void decode_q3_k(const uint8_t* block, float* y) {
  const uint8_t *mask = block, *qs = block + 32, *packed = block + 96;
  const float d = load_half(block + 108);
  int sub = 0, bit = 0;
  for (int half = 0; half < 2; ++half, qs += 32) {
    for (int shift = 0; shift < 8; shift += 2, ++bit) {
      for (int part = 0; part < 2; ++part, ++sub) {
        const int low = sub < 8 ? packed[sub] & 15 : packed[sub - 8] >> 4;
        const int high = (packed[8 + sub % 4] >> (2 * (sub / 4))) & 3;
        const float dl = d * float((low | high << 4) - 32);
        for (int l = 16 * part; l < 16 * part + 16; ++l) {
          const int minus = (mask[l] >> bit) & 1 ? 0 : 4;
          *y++ = dl * float(((qs[l] >> shift) & 3) - minus);
        }
      }
    }
  }
}

void decode_q4_k(const uint8_t* block, float* y) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t *scales = block + 4, *qs = block + 16;
  for (int pair = 0; pair < 4; ++pair, qs += 32) {
    for (int nibble = 0; nibble < 2; ++nibble) {
      const ScaleMin of = unpack_scale_min(scales, 2 * pair + nibble);
      const float dl = d * float(of.scale), ml = dmin * float(of.min);
      for (int l = 0; l < 32; ++l) *y++ = dl * float((qs[l] >> (4 * nibble)) & 15) - ml;
    }
  }
}

void decode_q5_k(const uint8_t* block, float* y) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t *scales = block + 4, *high = block + 16, *qs = block + 48;
  for (int pair = 0; pair < 4; ++pair, qs += 32) {
    for (int nibble = 0; nibble < 2; ++nibble) {
      const int sub = 2 * pair + nibble;
      const ScaleMin of = unpack_scale_min(scales, sub);
      const float dl = d * float(of.scale), ml = dmin * float(of.min);
      for (int l = 0; l < 32; ++l) {
        *y++ = dl * float(((qs[l] >> (4 * nibble)) & 15) | ((high[l] >> sub) & 1) << 4) - ml;
      }
    }
  }
}

void decode_q6_k(const uint8_t* block, float* y) {
  const uint8_t *low = block, *high = block + 128, *scales = block + 192;
  const float d = load_half(block + 208);
  for (int half = 0; half < 2; ++half, low += 64, high += 32, scales += 8) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int l = 0; l < 32; ++l) {
        const int nibble = (low[l + 32 * (quarter & 1)] >> (4 * (quarter >> 1))) & 15;
        const int q = (nibble | ((high[l] >> (2 * quarter)) & 3) << 4) - 32;
        *y++ = d * float(int8_t(scales[2 * quarter + l / 16])) * float(q);
      }
    }
  }
}

void decode_blocks(Type type, void (*decode)(const uint8_t*, float*), const uint8_t* src, float* dst, uint64_t values) {
  const TypeInfo& of = info(type);
  row_bytes(type, values);  // refuses a part of a block
  for (uint64_t i = 0; i < values; i += of.block_values, src += of.block_bytes) decode(src, dst + i);
}

}  // namespace

void decode_row(Type type, const void* src, float* dst, uint64_t values) {
  const uint8_t* bytes = static_cast<const uint8_t*>(src);
  switch (type) {
    case Type::F32:
      if (values != 0) std::memcpy(dst, src, values * sizeof(float));
      return;
    case Type::F16:
      for (uint64_t i = 0; i < values; ++i) dst[i] = load_half(bytes + 2 * i);
      return;
    case Type::BF16:
      for (uint64_t i = 0; i < values; ++i) dst[i] = bf16_to_float(load_u16(bytes + 2 * i));
      return;
    case Type::Q4_0:
      return decode_blocks(type, decode_q4_0, bytes, dst, values);
    case Type::Q4_1:
      return decode_blocks(type, decode_q4_1, bytes, dst, values);
    case Type::Q5_0:
      return decode_blocks(type, decode_q5_0, bytes, dst, values);
    case Type::Q5_1:
      return decode_blocks(type, decode_q5_1, bytes, dst, values);
    case Type::Q8_0:
      return decode_blocks(type, decode_q8_0, bytes, dst, values);
    case Type::Q2_K:
      return decode_blocks(type, decode_q2_k, bytes, dst, values);
    case Type::Q3_K:
      return decode_blocks(type, decode_q3_k, bytes, dst, values);
    case Type::Q4_K:
      return decode_blocks(type, decode_q4_k, bytes, dst, values);
    case Type::Q5_K:
      return decode_blocks(type, decode_q5_k, bytes, dst, values);
    case Type::Q6_K:
      return decode_blocks(type, decode_q6_k, bytes, dst, values);
  }
  fail(code::internal, "decode_row has no code for type ", uint32_t(type));
}

}  // namespace minigpt4
