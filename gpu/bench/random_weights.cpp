#include "random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/blocks.h"
#include "core/rng.h"

namespace minigpt4::bench {
namespace {

constexpr int64_t kRows = 61;  // encoded; a prime, so that no tile meets the same ones each time

void fill(std::vector<float>& values, float size, uint64_t seed) {
  Rng rng{seed};
  for (float& x : values) x = (float(rng.uniform()) - 0.5f) * size;
}

}  // namespace

Buffer<float> random_floats(Ops& ops, int64_t count) {
  Buffer<float> all(ops, count, "bench");
  std::vector<float> piece(size_t(std::min<int64_t>(count, 1 << 20)));
  fill(piece, 1, uint64_t(count));
  for (int64_t at = 0; at < count; at += int64_t(piece.size())) {
    const int64_t values = std::min<int64_t>(int64_t(piece.size()), count - at);
    ops.upload(all + at, piece.data(), size_t(values) * sizeof(float));
  }
  return all;
}

Buffer<int32_t> device_ints(Ops& ops, const std::vector<int32_t>& values) {
  Buffer<int32_t> all(ops, int64_t(values.size()), "bench");
  ops.upload(all, values.data(), values.size() * sizeof(int32_t));
  return all;
}

std::unique_ptr<Matrix> random_matrix(Ops& ops, Type type, int64_t rows, int64_t cols) {
  const int64_t some = std::min(rows, kRows);
  std::vector<float> values(static_cast<size_t>(some * cols));
  fill(values, 2 / std::sqrt(float(cols)), uint64_t(rows * 31 + cols));
  const size_t bytes = row_bytes(type, uint64_t(cols));
  std::vector<uint8_t> blocks(bytes * size_t(rows));
  encode_row(type, values.data(), blocks.data(), values.size());
  for (int64_t row = some; row < rows; row += some) {
    std::memcpy(blocks.data() + size_t(row) * bytes, blocks.data(), size_t(std::min(some, rows - row)) * bytes);
  }
  return ops.matrix({type, rows, cols, blocks.data()}, "bench");
}

void RandomWeights::matrix(const std::string&, int64_t rows, int64_t cols, std::unique_ptr<Matrix>& slot, Presence) {
  slot = random_matrix(ops_, type_, rows, cols);
  bytes_ += double(row_bytes(type_, uint64_t(cols))) * double(rows);
  values_ += double(rows) * double(cols);
}

void RandomWeights::floats(const std::string& name, const std::vector<uint64_t>& shape, minigpt4::Floats& slot,
                           Presence presence) {
  if (presence == Presence::optional) return;
  size_t count = 1;
  for (const uint64_t size : shape) count *= size_t(size);
  std::vector<float> values(count, 1.0f);
  const bool norm = name.find("norm") != std::string::npos || name.find("ln") != std::string::npos;
  if (!norm || name.find(".bias") != std::string::npos) fill(values, 0.1f, count);
  Ops* const ops = &ops_;
  float* const memory = static_cast<float*>(ops->allocate(count * sizeof(float), "bench"));
  slot = minigpt4::Floats(memory, [ops](float* p) { ops->release(p); });
  ops->upload(memory, values.data(), count * sizeof(float));
}

}  // namespace minigpt4::bench
