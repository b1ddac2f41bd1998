// Damaged GGUF files: opening one and decoding all its tensors gives numbers or an Error. Usage: gguf_fuzz SECONDS
// [SEED].
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <limits>

#include <unistd.h>

#include "core/blocks.h"
#include "core/gguf.h"
#include "core/gguf_layout.h"
#include "fuzz/mutator.h"
#include "ops/ops.h"

using namespace minigpt4;

namespace {

std::string file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// A small file with every kind of key and every type of tensor; `grouped`: the tensors in groups of rows.
std::string healthy_file(const std::string& path, bool grouped) {
  using Strings = std::vector<std::string>;
  const uint64_t alignment = grouped ? kGroupAlignment : 32;
  const std::vector<std::pair<std::string, GgufValue>> keys = {
      {"general.architecture", {8, 0, std::string("llama")}},
      {"general.alignment", {4, 0, alignment}},
      {"llama.block_count", {4, 0, uint64_t(2)}},
      {"small", {1, 0, int64_t(-3)}},
      {"large", {10, 0, uint64_t(1) << 63}},
      {"epsilon", {6, 0, 1e-5}},
      {"precise", {12, 0, 0.1}},
      {"flag", {7, 0, true}},
      {"tokenizer.ggml.tokens",
       {9, 8,
        Strings{"<unk>", "a", "",
                "\xe2\x96\x81"
                "b"}}},
      {"tokenizer.ggml.scores", {9, 6, std::vector<double>{0, -1, -2, -3}}},
      {"tokenizer.ggml.token_type", {9, 5, std::vector<int64_t>{2, 1, 1, 1}}},
      {"bytes", {9, 0, std::vector<uint64_t>{1, 2, 255}}},
      {"flags", {9, 7, std::vector<bool>{true, false}}},
  };
  std::vector<GgufTensorPlan> plans;
  for (const Type type : {Type::F32, Type::F16, Type::BF16, Type::Q4_0, Type::Q4_1, Type::Q5_0, Type::Q5_1, Type::Q8_0,
                          Type::Q2_K, Type::Q3_K, Type::Q4_K, Type::Q5_K, Type::Q6_K}) {
    plans.push_back({std::string("blk.0.") + name(type), type, {256, 2}, grouped});
  }
  GgufWriter writer(path, keys, plans, uint32_t(alignment), &cpu_row_groups());
  const std::string zeros(256 * 2 * sizeof(float), '\x11');
  while (const GgufTensorPlan* plan = writer.current()) writer.write(plan->type, zeros.data(), 512);
  writer.finish();
  return file_bytes(path);
}

/// Computes with a matrix in groups of rows, if it is whole, and takes its last row.
double mapped_value(const GgufFile& file, const GgufTensor& tensor) {
  static const std::unique_ptr<Ops> ops = make_cpu_ops({.threads = 1});
  const int64_t cols = int64_t(tensor.shape[0]), rows = int64_t(tensor.shape[1]);
  const auto matrix =
      ops->mapped_matrix({tensor.type, rows, cols, tensor.grouped, size_t(tensor.bytes), file.part_of(tensor)});
  std::vector<float> row(tensor.shape[0]);
  const int32_t last = int32_t(rows - 1);
  ops->embed(row.data(), *matrix, &last, 1);
  return double(row.back());
}

void read_all(const std::string& path) {
  const GgufFile file(path);
  std::vector<float> row;
  double total = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.grouped) {
      total += mapped_value(file, tensor);
      continue;
    }
    const uint64_t width = tensor.shape[0], rows = tensor.values() / width;
    const size_t bytes = row_bytes(tensor.type, width);
    row.resize(size_t(width));
    for (uint64_t i = 0; i < rows; ++i) {
      decode_row(tensor.type, tensor.data + size_t(i) * bytes, row.data(), width);
      total += double(row[0]);
    }
  }
  file.check_unchanged();
  for (const auto& [key, value] : file.keys()) {
    if (value.type == 4) file.unsigned_key(key);
    if (value.type == 9 && value.element_type == 5) file.integers_key(key);
  }
  file.strings_key("tokenizer.ggml.tokens");
  if (total == std::numeric_limits<double>::denorm_min()) std::printf("\n");  // the sum is used, so it is computed
}

}  // namespace

int main(int count, char** arguments) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("minigpt4-gguf-fuzz-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string path = (folder / "input.gguf").string();
  const std::string seed = healthy_file(path, false), grouped = healthy_file(path, true);
  const size_t header = size_t(GgufFile(path).tensors().front().offset);  // the longer one
  const int result =
      fuzz::run_target("gguf_fuzz", count, arguments, {seed, grouped}, header, [&](const std::string& input) {
        // Written anew each time: an empty input is a file too.
        std::ofstream(path, std::ios::binary | std::ios::trunc) << input;
        read_all(path);
      });
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return result;
}
