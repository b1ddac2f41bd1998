// The gradient of causal attention, by blocks of queries: the block's probabilities and their gradients are computed as
// the forward pass does, then five float products are made of them. Sums over queries are chains of kGradientQueries,
// added head by head and block by block from the first on.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// n rows of D values to groups of 16 columns [group][n][16], those beyond D zero.
inline void group_columns(const float* x, int64_t stride, int n, int D, float* to) {
  for (int i = 0; i < n; ++i) {
    for (int64_t d = 0; d < padded(D); d += kLanes) {
      store(to + (d / 16 * n + i) * 16 + d % 16, load_part(x + i * stride + d, lanes_left(D, d)));
    }
  }
}

/// The rows of p from exponentials to probabilities; those of dp become the scores' gradients p · (dp - Σ p · dp).
/// Both are zero from `seen` up to `width`.
inline void softmax_gradient(float* p, float* dp, int seen, int width) {
  const F inverse = set1(1.0f / softmax_row(p, seen));
  const float total = sum_row(seen, [&](int64_t i, int, F sum) {
    const F q = mul(load(p + i), inverse);
    store(p + i, q);
    return fma(q, load(dp + i), sum);
  });
  const F shift = set1(total);
  const int end = int(padded(seen));
  for (int i = 0; i < end; i += kLanes) store(dp + i, mul(load(p + i), sub(load(dp + i), shift)));
  for (int i = end; i < width; i += kLanes) {
    store(p + i, zero());
    store(dp + i, zero());
  }
}

void attend_dx(const CausalGradient& a, float* scratch) {
  const int D = a.D, before = a.keys - a.queries;
  const int64_t width = padded(D), score_width = score_stride(a.keys), key_groups = padded(a.keys) / 16;
  const auto take = [&](int64_t n) {
    float* at = scratch;
    scratch += n;
    return at;
  };
  float* const keys = take(key_groups * 16 * D);                // [key group][D][16]
  float* const values = take(key_groups * 16 * D);              // likewise
  float* const key_columns = take(width * a.keys);              // [D group][keys][16]
  float* const p = take(kGradientQueries * score_width);        // [queries of the block][keys]
  float* const dp = take(kGradientQueries * score_width);       // likewise
  float* const queries = take(kGradientQueries * D);            // [queries of the block][D], scaled
  float* const query_columns = take(kGradientQueries * width);  // [D group][queries of the block][16], scaled
  float* const dy_columns = take(kGradientQueries * width);     // likewise, not scaled
  float* const out = take(kGradientQueries * width);            // [queries of the block][width]
  float* const dk = take(a.queries * width);
  float* const dv = take(a.queries * width);
  const F scale = set1(a.scale);

  for (int64_t g = 0; g < key_groups; ++g) {
    const int n = a.keys - 16 * g < 16 ? int(a.keys - 16 * g) : 16;
    transpose_group(a.k + 16 * g * a.kv_stride, a.kv_stride, n, D, keys + g * 16 * D);
    transpose_group(a.v + 16 * g * a.kv_stride, a.kv_stride, n, D, values + g * 16 * D);
  }
  group_columns(a.k, a.kv_stride, a.keys, D, key_columns);
  for (int64_t i = 0; i < a.queries * width; i += kLanes) {
    store(dk + i, zero());
    store(dv + i, zero());
  }

  for (int h = 0; h < a.heads; ++h) {
    for (int i0 = 0; i0 < a.queries; i0 += kGradientQueries) {
      const int n = a.queries - i0 < kGradientQueries ? a.queries - i0 : kGradientQueries;
      const int seen = before + i0 + n;  // keys that the block's last query sees
      const int64_t groups = padded(seen) / 16, first = i0 * a.q_stride + h * D;
      const float* const dy = a.dy + first;
      for (int i = 0; i < n; ++i) {
        each_vector(D, [&](int64_t d, int used) {
          store_part(queries + i * D + d, mul(load_part(a.q + first + i * a.q_stride + d, used), scale), used);
        });
      }
      group_columns(queries, D, n, D, query_columns);
      group_columns(dy, a.q_stride, n, D, dy_columns);

      for (int i = 0; i < n; i += kRows) {
        const int rows = n - i < kRows ? n - i : kRows;
        float *const p_row = p + i * score_width, *const dp_row = dp + i * score_width;
        tiles<false, float>(
            rows, queries + i * D, D, [&](int64_t g) { return keys + g * 16 * D; }, groups, D, p_row, score_width,
            false);
        tiles<false, float>(
            rows, dy + i * a.q_stride, a.q_stride, [&](int64_t g) { return values + g * 16 * D; }, groups, D, dp_row,
            score_width, false);
        for (int r = 0; r < rows; ++r) {
          softmax_gradient(p_row + r * score_width, dp_row + r * score_width, before + i0 + i + r + 1,
                           int(16 * groups));
        }
        tiles<false, float>(
            rows, dp_row, score_width, [&](int64_t g) { return key_columns + g * a.keys * 16; }, width / 16, seen,
            out + i * width, width, false);
      }
      for (int i = 0; i < n; ++i) {
        each_vector(D, [&](int64_t d, int used) {
          store_part(a.dq + first + i * a.q_stride + d, mul(load(out + i * width + d), scale), used);
        });
      }
      const auto add_over_queries = [&](const float* weights, const float* columns, float* sums) {
        for (int j = 0; j < i0 + n; j += kRows) {
          const int rows = i0 + n - j < kRows ? i0 + n - j : kRows;
          tiles<true, float>(
              rows, weights + before + j, score_width, [&](int64_t g) { return columns + g * n * 16; }, width / 16, n,
              sums + j * width, width, true);
        }
      };
      add_over_queries(p, dy_columns, dv);
      add_over_queries(dp, query_columns, dk);
    }
  }
  for (int i = 0; i < a.queries; ++i) {
    each_vector(D, [&](int64_t d, int used) {
      store_part(a.dk + i * a.kv_stride + d, load(dk + i * width + d), used);
      store_part(a.dv + i * a.kv_stride + d, load(dv + i * width + d), used);
    });
  }
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
