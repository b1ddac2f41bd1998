// Attention of every query to every key: two float products per tile of queries, with keys transposed and values cut
// into groups of 16 columns in scratch. Each score is one chain over D, each output one chain over the keys.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// Sixteen rows (n of them real, the others zero) of D values to [D][16].
inline void transpose_group(const float* x, int64_t stride, int n, int D, float* to) {
  for (int first = 0; first < 16; first += kLanes) {
    each_vector(D, [&](int64_t d, int used) {
      F rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = first + i < n ? load_part(x + (first + i) * stride + d, used) : zero();
      }
      transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (i < used) store(to + 16 * (d + i) + first, rows[i]);
      }
    });
  }
}

void attend_dense(const DenseAttention& a, int t0, int t1, float* scratch) {
  const int64_t key_groups = padded(a.Tk) / 16, value_groups = padded(a.D) / 16;
  const int64_t width = padded(a.D), score_width = score_stride(a.Tk);
  float* keys = scratch;                              // [key group][D][16]
  float* values = keys + key_groups * 16 * a.D;       // [value group][Tk][16]
  float* scores = values + value_groups * 16 * a.Tk;  // [kRows][score_width]
  float* queries = scores + kRows * score_width;      // [kRows][D]
  float* out = queries + kRows * a.D;                 // [kRows][width]
  for (int64_t g = 0; g < key_groups; ++g) {
    const int n = a.Tk - 16 * g < 16 ? int(a.Tk - 16 * g) : 16;
    transpose_group(a.k + 16 * g * a.k_stride, a.k_stride, n, a.D, keys + g * 16 * a.D);
  }
  for (int i = 0; i < a.Tk; ++i) {
    for (int64_t g = 0; g < value_groups; ++g) {
      for (int p = 0; p < 16; p += kLanes) {
        const int64_t d = 16 * g + p;
        store(values + (g * a.Tk + i) * 16 + p, load_part(a.v + i * a.v_stride + d, lanes_left(a.D, d)));
      }
    }
  }
  for (int t = t0; t < t1; t += kRows) {
    const int rows = t1 - t < kRows ? t1 - t : kRows;
    const F scale = set1(a.scale);
    for (int r = 0; r < rows; ++r) {
      each_vector(a.D, [&](int64_t d, int used) {
        store_part(queries + r * a.D + d, mul(load_part(a.q + (t + r) * a.q_stride + d, used), scale), used);
      });
    }
    tiles<false, float>(
        rows, queries, a.D, [&](int64_t g) { return keys + g * 16 * a.D; }, key_groups, a.D, scores, score_width,
        false);
    float inverse[kRows];
    for (int r = 0; r < rows; ++r) inverse[r] = 1.0f / softmax_row(scores + r * score_width, a.Tk);
    tiles<false, float>(
        rows, scores, score_width, [&](int64_t g) { return values + g * 16 * a.Tk; }, value_groups, a.Tk, out, width,
        false);
    for (int r = 0; r < rows; ++r) {
      const F factor = set1(inverse[r]);
      each_vector(a.D, [&](int64_t d, int used) {
        store_part(a.y + (t + r) * a.y_stride + d, mul(load(out + r * width + d), factor), used);
      });
    }
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
