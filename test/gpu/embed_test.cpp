// Rows of every weight type by id: the very values that the file's blocks stand for. With it, that packing weights and reading
// a tile of them agree.
#include <cstring>

#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;

namespace {

/// Fails the test where values differ; zeros of either sign are the same.
void same_values(const std::string& what, const Floats& found, const Floats& expected) {
  size_t differ = found.size() != expected.size();
  for (size_t i = 0; i < expected.size() && i < found.size(); ++i) differ += !(found[i] == expected[i]);
  if (differ) check::failed(__FILE__, __LINE__, what + ": values differ: " + std::to_string(differ));
}

Floats rows_of(const Floats& values, const std::vector<int32_t>& ids, int64_t cols) {
  Floats rows;
  for (int32_t id : ids) rows.insert(rows.end(), values.begin() + id * cols, values.begin() + (id + 1) * cols);
  return rows;
}

Floats embedded(const Matrix& w, const std::vector<int32_t>& ids) {
  Ops& ops = device();
  const OnDevice<int32_t> on_device(ops, ids);
  const OnDevice<float> y(ops, ids.size() * size_t(w.cols));
  ops.embed(y, w, on_device, int(ids.size()));
  return y.values();
}

std::vector<Type> all_types() {
  std::vector<Type> types = block_types();
  types.insert(types.end(), float_types().begin(), float_types().end());
  return types;
}

}  // namespace

TEST("cuda: embed gives the rows' values exactly") {
  for (Type type : all_types()) {
    const uint32_t block = info(type).block_values;
    for (const int64_t cols : {int64_t(block), int64_t(block == 256 ? 768 : block == 32 ? 352 : 77)}) {
      for (const bool random : {false, true}) {
        if (random && block == 1) continue;
        const int64_t rows = 37;
        const std::vector<uint8_t> w = random ? random_blocks(type, rows, cols, 4) : weights(type, rows, cols, 4);
        const std::vector<int32_t> ids{36, 0, 15, 16, 16, 31, 7, 8, 24};
        const auto matrix = device().matrix({type, rows, cols, w.data()}, "weights");
        same_values(std::string(name(type)) + ", " + std::to_string(cols) + " columns", embedded(*matrix, ids),
                    rows_of(decoded(type, w, rows, cols), ids, cols));
      }
    }
  }
}

TEST("cuda: weights that are packed in several pieces") {
  // 4 MiB a piece: 5000 rows of 2048 values in 8 bits are two and a half
  const int64_t rows = 5000, cols = 2048;
  for (Type type : {Type::Q8_0, Type::Q6_K}) {
    const std::vector<uint8_t> w = random_blocks(type, rows, cols, 5);
    const auto matrix = device().matrix({type, rows, cols, w.data()}, "weights");
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < rows; id += 61) ids.push_back(id);
    ids.push_back(int32_t(rows - 1));
    same_values(name(type), embedded(*matrix, ids), rows_of(decoded(type, w, rows, cols), ids, cols));
  }
}

TEST("cuda: a packed matrix is near the size of its blocks") {
  for (Type type : block_types()) {
    const std::vector<uint8_t> w = random_blocks(type, 64, 4096, 2);
    const double ratio = double(device().matrix({type, 64, 4096, w.data()}, "weights")->bytes) / double(w.size());
    // scales of six bits take a byte: of Q3_K 4 bytes in 110, of Q4_K and Q5_K as many in 144 and 176
    if (ratio > 1.04) check::failed(__FILE__, __LINE__, std::string(name(type)) + ": ratio " + std::to_string(ratio));
  }
}

TEST("cuda: memory that embed moves") {
  if (!device_case::counts_traffic()) throw check::Skip{"the emulator's hook build alone counts traffic"};
  for (Type type : block_types()) {
    const auto w = device().matrix({type, 32, 1024, weights(type, 32, 1024, 4).data()}, "weights");
    // a lane's words of a tile hold two rows' codes, and scales of 8 bytes lie in sectors of 32
    device_case::traffic(
        "embed_quantized",
        {.useful_reads = 0.25, .reason = "a row is read out of tiles of 16: rare, and the writes are more"},
        [&] { embedded(*w, {3, 17, 30}); });
  }
}
