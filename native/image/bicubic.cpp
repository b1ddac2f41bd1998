// Pillow's antialiased bicubic in fixed point. Rows stream through: each source row is resampled horizontally once and
// added into the output rows that see it, so beside the result only one row and the sums of the output are held.
#include "image/bicubic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>

#include "core/error.h"

namespace minigpt4 {
namespace {

constexpr int precision_bits = 22;  // 8 bits of a sample + 22 of a coefficient leave 2 for overshoot in an int32
constexpr int low_bits = 11;        // a coefficient as two int16: coefficient = high * 2^11 + low
constexpr int lanes = 8;            // rows of coefficients and samples are padded to this many

/// Keys' cubic with a = -0.5, in the nesting whose rounding the reference shows.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

/// One axis: output i = sum over t < count[i] of coefficients[i * stride + t] * source[first[i] + t].
struct Weights {
  int stride = 0;
  std::vector<int> first, count;
  std::vector<int32_t> coefficients;
};

Weights axis_weights(int in_size, int out_size) {
  const double scale = double(in_size) / out_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = 2.0 * filter_scale;
  Weights weights;
  const double taps = std::min(std::ceil(support) * 2.0 + 1.0, double(in_size));
  weights.stride = int((int64_t(taps) + lanes - 1) / lanes * lanes);
  weights.first.resize(size_t(out_size));
  weights.count.resize(size_t(out_size));
  weights.coefficients.resize(size_t(out_size) * size_t(weights.stride));
  std::vector<double> exact;
  for (int i = 0; i < out_size; ++i) {
    const double center = (i + 0.5) * scale;
    const int64_t begin = std::max<int64_t>(0, int64_t(center - support + 0.5));
    const int64_t end = std::min<int64_t>(in_size, int64_t(center + support + 0.5));
    exact.clear();
    double sum = 0.0;
    for (int64_t x = begin; x < end; ++x) {
      exact.push_back(cubic((double(x) - center + 0.5) * (1.0 / filter_scale)));
      sum += exact.back();
    }
    int32_t* row = &weights.coefficients[size_t(i) * size_t(weights.stride)];
    for (size_t t = 0; t < exact.size(); ++t) {
      const double value = (sum != 0.0 ? exact[t] / sum : exact[t]) * (1 << precision_bits);
      row[t] = int32_t(value < 0.0 ? value - 0.5 : value + 0.5);
    }
    weights.first[size_t(i)] = int(begin);
    weights.count[size_t(i)] = int(end - begin);
  }
  return weights;
}

inline uint8_t round_to_byte(int32_t sum) { return uint8_t(std::clamp(sum >> precision_bits, 0, 255)); }

/// Resamples rows of in_size RGB samples. Products are taken in int16 halves, which every vector unit multiplies and
/// adds in one instruction; the integer sums are the same in any order.
class HorizontalPass {
 public:
  HorizontalPass(int in_size, int out_size)
      : weights_(axis_weights(in_size, out_size)),
        plane_(size_t(in_size) + lanes),
        planes_(3 * plane_),
        high_(weights_.coefficients.size()),
        low_(weights_.coefficients.size()) {
    for (size_t i = 0; i < high_.size(); ++i) {
      high_[i] = int16_t(weights_.coefficients[i] >> low_bits);
      low_[i] = int16_t(weights_.coefficients[i] & ((1 << low_bits) - 1));
    }
  }

  void run(const uint8_t* source, int in_size, uint8_t* target) {
    int16_t* red = planes_.data();
    int16_t* green = red + plane_;
    int16_t* blue = green + plane_;
    for (int x = 0; x < in_size; ++x) {
      red[x] = source[3 * x];
      green[x] = source[3 * x + 1];
      blue[x] = source[3 * x + 2];
    }
    for (size_t i = 0; i < weights_.first.size(); ++i) {
      const int16_t* high = &high_[i * size_t(weights_.stride)];
      const int16_t* low = &low_[i * size_t(weights_.stride)];
      // the padding's coefficients are 0, so the samples (or the zeros) behind the window do not matter
      const int taps = std::min((weights_.count[i] + lanes - 1) / lanes * lanes, weights_.stride);
      for (int c = 0; c < 3; ++c) {
        const int16_t* samples = planes_.data() + size_t(c) * plane_ + weights_.first[i];
        int32_t high_sum = 0, low_sum = 0;
        for (int t = 0; t < taps; ++t) high_sum += int32_t(samples[t]) * int32_t(high[t]);
        for (int t = 0; t < taps; ++t) low_sum += int32_t(samples[t]) * int32_t(low[t]);
        target[3 * i + size_t(c)] = round_to_byte(high_sum * (1 << low_bits) + low_sum + (1 << (precision_bits - 1)));
      }
    }
  }

 private:
  Weights weights_;
  size_t plane_;
  std::vector<int16_t> planes_;  // [3, in_size + lanes]
  std::vector<int16_t> high_, low_;
};

/// Adds every row into the sums of the output rows whose windows hold it.
void vertical_pass(const Weights& weights, int y, const uint8_t* row, size_t row_bytes, size_t& oldest,
                   std::vector<int32_t>& sums) {
  // windows begin and end in ascending order, so those that see row y lie side by side
  while (oldest < weights.first.size() && weights.first[oldest] + weights.count[oldest] <= y) ++oldest;
  for (size_t out = oldest; out < weights.first.size() && weights.first[out] <= y; ++out) {
    const int32_t k = weights.coefficients[out * size_t(weights.stride) + size_t(y - weights.first[out])];
    int32_t* sum = &sums[out * row_bytes];
    for (size_t x = 0; x < row_bytes; ++x) sum[x] += k * row[x];
  }
}

std::vector<uint8_t> resize(const uint8_t* rgb, int width, int height, int size_x, int size_y) {
  const size_t in_bytes = size_t(width) * 3, out_bytes = size_t(size_x) * 3;
  std::vector<uint8_t> result(size_t(size_y) * out_bytes);
  const bool horizontal = width != size_x, vertical = height != size_y;
  if (!horizontal && !vertical) {
    std::memcpy(result.data(), rgb, result.size());
    return result;
  }
  HorizontalPass horizontal_pass(horizontal ? width : 1, horizontal ? size_x : 1);
  if (!vertical) {
    for (int y = 0; y < height; ++y)
      horizontal_pass.run(rgb + size_t(y) * in_bytes, width, &result[size_t(y) * out_bytes]);
    return result;
  }
  const Weights weights = axis_weights(height, size_y);
  std::vector<int32_t> sums(result.size(), 1 << (precision_bits - 1));
  std::vector<uint8_t> row(out_bytes);
  size_t oldest = 0;
  for (int y = 0; y < height; ++y) {
    const uint8_t* source = rgb + size_t(y) * in_bytes;
    if (horizontal) {
      horizontal_pass.run(source, width, row.data());
      source = row.data();
    }
    vertical_pass(weights, y, source, out_bytes, oldest, sums);
  }
  std::transform(sums.begin(), sums.end(), result.begin(), round_to_byte);
  return result;
}

}  // namespace

std::vector<uint8_t> resize_bicubic(const uint8_t* rgb, int width, int height, int size_x, int size_y) {
  if (width < 1 || height < 1 || size_x < 1 || size_y < 1) {
    fail(code::image, "a picture of ", width, " x ", height, " pixels cannot be resized to ", size_x, " x ", size_y,
         ": every side must be at least 1");
  }
  try {
    return resize(rgb, width, height, size_x, size_y);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  fail(code::image, "a picture of ", width, " x ", height, " pixels resized to ", size_x, " x ", size_y,
       " does not fit the memory");
}

void normalise(float* planes, const uint8_t* rgb, int size, const float mean[3], const float std[3]) {
  const size_t pixels = size_t(size) * size_t(size);
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < pixels; ++i) planes[c * pixels + i] = (float(rgb[3 * i + c]) / 255.0f - mean[c]) / std[c];
  }
}

}  // namespace minigpt4
