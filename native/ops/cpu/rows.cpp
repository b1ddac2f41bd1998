// Ops that work row by row or value by value: norms, activation functions, rotary positions, pictures to patches.
// Those written out here need no instruction set of their own: the same code serves every level.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/turn.h"

namespace minigpt4::cpu {

void CpuOps::layer_norm(float* y, const float* x, const float* weight, const float* bias, int T, int C, float eps) {
  rows_in_pieces(T, C, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) level_.layer_norm(y + t * C, x + t * C, weight, bias, C, eps);
  });
}

void CpuOps::rms_norm(float* y, const float* x, const float* weight, int T, int C, float eps) {
  rows_in_pieces(T, C, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) level_.rms_norm(y + t * C, x + t * C, weight, C, eps);
  });
}

void CpuOps::gelu(float* y, const float* x, int64_t n) {
  rows_in_pieces(n, 1, [&](int64_t begin, int64_t end, int) { level_.gelu(y + begin, x + begin, end - begin); });
}

void CpuOps::silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  rows_in_pieces(n, 1, [&](int64_t begin, int64_t end, int) {
    level_.silu_mul(y + begin, gate + begin, up + begin, end - begin);
  });
}

void CpuOps::gather_rows(float* y, const float* x, const int32_t* rows, int n, int C) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(y + i * C, x + int64_t(rows[i]) * C, size_t(C) * sizeof(float));
}

void CpuOps::scatter_rows(float* y, const float* x, const int32_t* rows, int n, int C) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(y + int64_t(rows[i]) * C, x + i * C, size_t(C) * sizeof(float));
}

void CpuOps::fill(float* y, float value, int64_t n) {
  rows_in_pieces(n, 1, [&](int64_t begin, int64_t end, int) { std::fill(y + begin, y + end, value); });
}

void CpuOps::rope_table(float* table, const int32_t* positions, const float* frequencies, int T, int half) {
  rows_in_pieces(T, int64_t(half) * 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int i = 0; i < half; ++i) {
        const float angle = float(positions[t]) * frequencies[i];
        float* to = table + (t * half + i) * 2;
        // of the float32 angle, but in double precision: correctly rounded for all practical purposes on any platform
        to[0] = float(std::cos(double(angle)));
        to[1] = float(std::sin(double(angle)));
      }
    }
  });
}

void CpuOps::rope(float* x, const float* table, int T, int H, int D, int half) {
  rows_in_pieces(T, int64_t(H) * D, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) turn_heads(x + t * H * D, table + t * half * 2, H, D, half, 1.0f);
  });
}

void CpuOps::rope_dx(float* dx, const float* table, int T, int H, int D, int half) {
  rows_in_pieces(T, int64_t(H) * D, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) turn_heads(dx + t * H * D, table + t * half * 2, H, D, half, -1.0f);
  });
}

void CpuOps::patchify(float* y, const float* pixels, int B, int S, int p) {
  const int side = S / p;
  const int64_t width = int64_t(3) * p * p;
  rows_in_pieces(int64_t(B) * side, width * side, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {  // of patches: (picture, row)
      const float* picture = pixels + row / side * 3 * S * S;
      float* to = y + row * side * width;
      for (int column = 0; column < side; ++column) {
        for (int channel = 0; channel < 3; ++channel) {
          const float* from = picture + (int64_t(channel) * S + row % side * p) * S + column * p;
          for (int i = 0; i < p; ++i, to += p) std::memcpy(to, from + int64_t(i) * S, size_t(p) * sizeof(float));
        }
      }
    }
  });
}

void CpuOps::prepend_class(float* x, const float* patches, const float* class_token, const float* positions, int B,
                           int P, int C) {
  rows_in_pieces(int64_t(B) * (P + 1), C, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / (P + 1), i = row % (P + 1);
      const float* from = i == 0 ? class_token : patches + (b * P + i - 1) * C;
      for (int c = 0; c < C; ++c) x[row * C + c] = from[c] + positions[i * C + c];
    }
  });
}

}  // namespace minigpt4::cpu
