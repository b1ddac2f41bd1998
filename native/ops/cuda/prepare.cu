// Rows of activations as products read them (prepared_rows.h), normalised or gated on the way: a block is a row, or a part of
// one where no norm needs the whole row. Shared memory: two floats a warp, for a norm's sums. Rows that fill the last tile of 8
// tokens are written as zeros.
//
// A thread makes the pieces of a lane, so that four threads read and write 64 consecutive bytes: every sector is used whole. 256
// threads take 4096 columns in one turn; for a single row that is as quick as more threads would be, since their sums would have
// to meet.
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"
#include "ops/cuda/prepare_source.h"

namespace minigpt4::cuda {

namespace {

constexpr int kThreads = 256;

struct PreparedTarget {
  uint8_t* codes;   // q8, half
  uint8_t* scales;  // q8
  float* y;         // plain
  int col_tiles, token_tiles;
};

/// Codes of four values, `inverse` codes a unit, to nearest even; and their sum.
__device__ inline uint32_t rounded_codes(const float (&v)[4], float inverse, int32_t& sum) {
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // the addition rounds: integers of up to 2^22 are the low bits of 1.5 · 2^23 and a few more
    const int32_t code = std::bit_cast<int32_t>(v[i] * inverse + 12582912.0f) - 0x4B400000;
    sum += int32_t(int8_t(code));
    word |= uint32_t(uint8_t(code)) << (8 * i);
  }
  return word;
}

template <class Value>
__device__ inline Value sum_of_four_lanes(Value x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

/// Lane q's part of token t in column tile `tile`: 16 columns of each block. All lanes of a warp come here, those without a
/// tile with one that is not there.
template <RowForm form>
__device__ inline void prepare_q8(const RowSource& s, const PreparedTarget& to, const RowStatistics& of, int t,
                                  int tile, int q) {
  const bool there = tile < to.col_tiles;
  const int64_t at = int64_t(tile) * to.token_tiles + t / kTokenTile;
  const int g = t % kTokenTile;
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    float v[2][4] = {};
    float most = 0, poison = 0;
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
      if (there && t < s.T) row_values<form>(v[piece], s, of, t, 64 * tile + 32 * b + 16 * piece + 4 * q);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        most = fmaxf(most, fabsf(v[piece][i]));
        poison =
            fmaf(v[piece][i], 0.0f, poison);  // NaN if a value is NaN or infinite: such a block must not look harmless
      }
    }
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
    poison = sum_of_four_lanes(poison);
    const bool some = most >= 1e-35f && poison == 0.0f;  // below, 127 / most would leave float32
    const float inverse = some ? 127.0f / most : 0.0f;
    int32_t sums[2] = {};
    uint32_t words[2];
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) words[piece] = rounded_codes(v[piece], inverse, sums[piece]);
    // both sums at once: the second one in the upper half, from which the first one's sign has been borrowed
    const int32_t both = sum_of_four_lanes(sums[0] + sums[1] * 65536);
    const int32_t low = int32_t(int16_t(both));
    if (!there) continue;
    *reinterpret_cast<uint2*>(to.codes + at * 512 + b * 256 + (4 * g + q) * 8) = make_uint2(words[0], words[1]);
    if (q == 0) {
      const float d = (some ? most / 127.0f : 0.0f) + poison;
      const uint32_t packed = (uint32_t(low) & 0xffffu) | uint32_t(both - low);
      *reinterpret_cast<uint2*>(to.scales + at * 128 + b * 64 + g * 8) = make_uint2(std::bit_cast<uint32_t>(d), packed);
    }
  }
}

/// The same in column tiles of 32: two columns of each 8.
template <RowForm form, RowKind kind>
__device__ inline void prepare_half(const RowSource& s, const PreparedTarget& to, const RowStatistics& of, int t,
                                    int tile, int q) {
  uint32_t words[4] = {};
#pragma unroll
  for (int piece = 0; piece < 4; ++piece) {
    if (t >= s.T) break;
    float v[2];
    row_values<form>(v, s, of, t, 32 * tile + 8 * piece + 2 * q);
    words[piece] = kind == RowKind::f16 ? gpu::pack_f16(v[0], v[1]) : gpu::pack_bf16(v[0], v[1]);
  }
  const int64_t at = int64_t(t / kTokenTile) * to.col_tiles + tile;
  *reinterpret_cast<uint4*>(to.codes + at * 512 + (4 * (t % kTokenTile) + q) * 16) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

template <RowForm form>
__device__ inline void prepare_plain(const RowSource& s, const PreparedTarget& to, const RowStatistics& of, int t,
                                     int k) {
  float v[4];
  row_values<form>(v, s, of, t, k);
  float* y = to.y + int64_t(t) * s.C + k;
  if (s.C % 4 == 0) {
    *reinterpret_cast<float4*>(y) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    for (int i = 0; i < 4 && k + i < s.C; ++i) y[i] = v[i];
  }
}

template <RowForm form, RowKind kind>
__global__ void __launch_bounds__(kThreads) prepare_rows(const RowSource s, const PreparedTarget to) {
  gpu::wait_for_previous();
  const int t = int(blockIdx.x);
  RowStatistics of;
  if (t < s.T) of = row_statistics<form>(s, t);
  // lanes' parts of a row, in turns that are the same for all threads of the block
  const int parts = kind == RowKind::plain ? (s.C + 3) / 4 : to.col_tiles * 4;
  for (int first = int(blockIdx.y) * kThreads; first < parts; first += int(gridDim.y) * kThreads) {
    const int part = first + int(threadIdx.x);
    if constexpr (kind == RowKind::q8) {
      prepare_q8<form>(s, to, of, t, part / 4, part % 4);
    } else if (part < parts) {
      if constexpr (kind == RowKind::plain) {
        prepare_plain<form>(s, to, of, t, part * 4);
      } else {
        prepare_half<form, kind>(s, to, of, t, part / 4, part % 4);
      }
    }
  }
}

using PrepareKernel = void (*)(RowSource, PreparedTarget);

template <RowKind kind>
PrepareKernel kernel_of(RowForm form) {
  switch (form) {
    case RowForm::plain:
      return prepare_rows<RowForm::plain, kind>;
    case RowForm::rms_norm:
      return prepare_rows<RowForm::rms_norm, kind>;
    case RowForm::layer_norm:
      return prepare_rows<RowForm::layer_norm, kind>;
    case RowForm::gelu:
      return prepare_rows<RowForm::gelu, kind>;
    case RowForm::silu_mul:
      break;
  }
  return prepare_rows<RowForm::silu_mul, kind>;
}
PrepareKernel kernel_of(RowForm form, RowKind kind) {
  switch (kind) {
    case RowKind::q8:
      return kernel_of<RowKind::q8>(form);
    case RowKind::f16:
      return kernel_of<RowKind::f16>(form);
    case RowKind::bf16:
      return kernel_of<RowKind::bf16>(form);
    case RowKind::plain:
      break;
  }
  return kernel_of<RowKind::plain>(form);
}

}  // namespace

PreparedRows CudaOps::prepare(const Rows& rows, RowKind kind, int T, int64_t cols) {
  PreparedRows made;
  made.kind = kind;
  made.T = T;
  made.cols = cols;
  if (kind == RowKind::plain && rows.form == RowForm::plain) {
    made.x = rows.x;
    return made;
  }
  const int tile_cols = kind == RowKind::q8 ? 64 : 32;
  made.col_tiles = kind == RowKind::plain ? 0 : (cols + tile_cols - 1) / tile_cols;
  const size_t tiles = size_t(made.token_tiles()) * size_t(made.col_tiles);
  PreparedTarget to{nullptr, nullptr, nullptr, int(made.col_tiles), made.token_tiles()};
  if (kind == RowKind::plain) {
    made.x = to.y = static_cast<float*>(scratch(Scratch::rows, size_t(T) * size_t(cols) * sizeof(float)));
  } else {
    made.codes = to.codes = static_cast<uint8_t*>(scratch(Scratch::rows, tiles * 512));
  }
  if (kind == RowKind::q8) {
    to.scales = static_cast<uint8_t*>(scratch(Scratch::row_scales, tiles * 16 * sizeof(Q8Scale)));
    made.scales = reinterpret_cast<const Q8Scale*>(to.scales);
  }
  const bool aligned = cols % 4 == 0 && aligned16({rows.x, rows.weight, rows.bias, rows.up});
  const RowSource source{rows.x, rows.weight, rows.bias, rows.up, rows.eps, T, int(cols), aligned};
  const bool whole = rows.form == RowForm::rms_norm || rows.form == RowForm::layer_norm;
  const int64_t parts = kind == RowKind::plain ? (cols + 3) / 4 : made.col_tiles * 4;
  const dim3 grid(unsigned(kind == RowKind::plain ? T : made.token_tiles() * kTokenTile),
                  whole ? 1u : unsigned((parts + kThreads - 1) / kThreads));
  run_overlapping("preparing rows", kernel_of(rows.form, kind), grid, dim3(kThreads), 0, source, to);
  return made;
}

}  // namespace minigpt4::cuda
