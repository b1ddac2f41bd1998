#include "core/gguf_layout.h"

#include <unordered_map>

#include "core/error.h"
#include "core/gguf_cursor.h"

namespace minigpt4 {

namespace {

constexpr const char* kLayout = "minigpt4.layout";
constexpr const char* kVersion = "minigpt4.layout.version";
constexpr const char* kTensors = "minigpt4.layout.tensors";
constexpr const char* kTypes = "minigpt4.layout.types";
constexpr const char* kShapes = "minigpt4.layout.shapes";

constexpr const char* kName = "cpu";
// To be raised with every change of what a group's bytes mean: test/native/row_groups_test.cpp knows them.
constexpr uint64_t kCurrent = 2;

constexpr uint32_t kU32 = 4, kString = 8, kArray = 9, kU64 = 10;

void check_known(const GgufFile& file) {
  constexpr const char* advice =
      ": convert the model again with `minigpt4 convert --layout cpu` of this version, from the"
      " file or the checkpoints that it was made from";
  const std::string name = file.string_key(kLayout);
  if (name != kName) {
    fail(code::unsupported, file.path(), " holds its matrices in the layout ", quoted(name), ", expected ",
         quoted(kName), advice);
  }
  const uint64_t version = file.unsigned_key(kVersion);
  if (version != kCurrent) {
    fail(code::unsupported, file.path(), " holds its matrices in version ", version, " of the layout ", quoted(name),
         ", expected version ", kCurrent, advice);
  }
}

std::vector<uint64_t> numbers(const GgufFile& file, const char* key, size_t expected) {
  std::vector<uint64_t> found;
  for (const int64_t number : file.integers_key(key)) {
    if (number < 0)
      fail(code::file_format, file.path(), ": key ", key, " holds ", number, ", expected sizes and types");
    found.push_back(uint64_t(number));
  }
  if (found.size() != expected) {
    fail(code::file_format, file.path(), ": key ", key, " has ", found.size(), " elements, expected ", expected, " as ",
         kTensors, " tells of");
  }
  return found;
}

[[noreturn]] void fail_unread(const GgufFile& file, const GgufTensor& tensor) {
  fail(code::unsupported, file.path(), ": tensor ", quoted(tensor.name), " is of type ", kBytesTypeName, " (",
       kBytesType,
       "), which this version does not read; it reads F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K");
}

}  // namespace

std::vector<std::pair<std::string, GgufValue>> layout_keys(const std::vector<GgufTensorPlan>& tensors) {
  std::vector<std::string> names;
  std::vector<uint64_t> types, shapes;
  for (const GgufTensorPlan& plan : tensors) {
    if (!plan.grouped) continue;
    names.push_back(plan.name);
    types.push_back(uint64_t(plan.type));
    shapes.insert(shapes.end(), plan.shape.begin(), plan.shape.end());
  }
  if (names.empty()) return {};
  return {{kLayout, {kString, 0, std::string(kName)}},
          {kVersion, {kU32, 0, kCurrent}},
          {kTensors, {kArray, kString, std::move(names)}},
          {kTypes, {kArray, kU32, std::move(types)}},
          {kShapes, {kArray, kU64, std::move(shapes)}}};
}

void apply_layout(const GgufFile& file, std::vector<GgufTensor>& tensors) {
  std::unordered_map<std::string, GgufTensor*> grouped;
  for (GgufTensor& tensor : tensors) {
    if (tensor.grouped) grouped.emplace(tensor.name, &tensor);
  }
  if (!file.find(kLayout)) {
    for (const GgufTensor& tensor : tensors) {
      if (tensor.grouped) fail_unread(file, tensor);
    }
    return;
  }
  check_known(file);
  const std::vector<std::string>& names = file.strings_key(kTensors);
  const std::vector<uint64_t> types = numbers(file, kTypes, names.size());
  const std::vector<uint64_t> shapes = numbers(file, kShapes, 2 * names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const auto at = [&] { return file.path() + ": tensor " + quoted(names[i]); };
    const auto found = grouped.find(names[i]);
    if (found == grouped.end()) {
      fail(code::file_format, at(), " is in ", kTensors, ", expected one of type ", kBytesTypeName, ", once");
    }
    GgufTensor& tensor = *found->second;
    grouped.erase(found);
    if (types[i] > UINT32_MAX || !find_type(uint32_t(types[i]))) {
      fail(code::file_format, at(), " stands for values of type ", types[i], ", which is no type that is read");
    }
    const TypeInfo& type = *find_type(uint32_t(types[i]));
    const uint64_t cols = shapes[2 * i], rows = shapes[2 * i + 1];
    // no type has less than two bits a value: what this lets through can be computed with
    if (cols == 0 || rows == 0 || cols % type.block_values != 0 || rows > 4 * tensor.bytes / cols) {
      fail(code::file_format, at(), " of ", tensor.bytes, " bytes stands for ", rows, " rows of ", cols,
           " values of type ", type.name, ", which cannot be");
    }
    tensor.type = type.type;
    tensor.shape = {cols, rows};
  }
  for (const GgufTensor& tensor : tensors) {
    if (grouped.contains(tensor.name)) {
      fail(code::file_format, file.path(), ": tensor ", quoted(tensor.name), " is of type ", kBytesTypeName, ", but ",
           kTensors, " does not tell what it stands for");
    }
  }
}

}  // namespace minigpt4
