// Opens a GGUF file: header, keys, tensor infos and all checks of where the tensors' data lies; then its other parts.
#include <algorithm>
#include <cstdio>
#include <limits>

#include "core/gguf.h"
#include "core/gguf_cursor.h"
#include "core/gguf_layout.h"
#include "core/gguf_magic.h"
#include "core/gguf_value.h"

namespace minigpt4 {

namespace {

constexpr uint64_t kDefaultAlignment = 32;
// Data pointers are used as float pointers; the format's specification asks for a multiple of 8 too.
constexpr uint64_t kLeastAlignment = 8;
constexpr uint64_t kMostValues = uint64_t(std::numeric_limits<int64_t>::max());

using Keys = std::vector<std::pair<std::string, GgufValue>>;

Keys read_keys(GgufCursor& cursor, uint64_t count, std::unordered_map<std::string, size_t>& index) {
  Keys keys;
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.string("a key's name");
    GgufValue value = read_gguf_value(cursor, key);
    if (!index.emplace(key, keys.size()).second) {
      fail(code::file_format, cursor.path(), " has the key ", quoted(key), " twice, expected it once");
    }
    keys.emplace_back(std::move(key), std::move(value));
  }
  return keys;
}

/// An unsigned integer among a part's keys.
uint64_t part_key(const std::string& path, const Keys& keys, std::string_view key, uint64_t otherwise) {
  for (const auto& [name, value] : keys) {
    if (name != key) continue;
    if (const uint64_t* number = std::get_if<uint64_t>(&value.value)) return *number;
    if (const int64_t* number = std::get_if<int64_t>(&value.value); number && *number >= 0) return uint64_t(*number);
    fail(code::file_format, path, ": key ", key, " is ", gguf_kind_name(value), ", expected an unsigned integer");
  }
  return otherwise;
}

uint64_t read_alignment(const std::string& path, const Keys& keys) {
  const uint64_t alignment = part_key(path, keys, "general.alignment", kDefaultAlignment);
  if (alignment < kLeastAlignment || alignment > UINT32_MAX || !std::has_single_bit(alignment)) {
    fail(code::file_format, path, ": general.alignment is ", alignment, ", expected a power of two from ",
         kLeastAlignment);
  }
  return alignment;
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::ostringstream text;
  for (size_t i = 0; i < shape.size(); ++i) text << (i ? " x " : "") << shape[i];
  return text.str();
}

constexpr TypeInfo kGroupBytes{Type::F32, kBytesTypeName, 1, 1};  // what the bytes stand for, apply_layout tells

struct TensorInfo {
  GgufTensor tensor;
  bool grouped;
};

/// Name, shape, type and offset of one tensor, and its bytes; the offset is still relative to the data.
TensorInfo read_tensor_info(GgufCursor& cursor, uint64_t alignment) {
  GgufTensor tensor;
  tensor.name = cursor.string("a tensor's name");
  const std::string at = cursor.path() + ": tensor " + quoted(tensor.name);
  if (tensor.name.empty()) fail(code::file_format, cursor.path(), " has a tensor without a name");
  const uint32_t dimensions = cursor.number<uint32_t>("a tensor's number of dimensions");
  if (dimensions < 1 || dimensions > 4)
    fail(code::file_format, at, " has ", dimensions, " dimensions, expected 1 to 4");
  uint64_t values = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t size = cursor.number<uint64_t>("a tensor's size");
    tensor.shape.push_back(size);
    if (size == 0 || size > kMostValues / values) {
      fail(code::file_format, at, " has the impossible shape ", shape_text(tensor.shape));
    }
    values *= size;
  }
  const uint32_t number = cursor.number<uint32_t>("a tensor's type");
  const bool grouped = number == kBytesType;
  const TypeInfo* type = grouped ? &kGroupBytes : find_type(number);
  if (!type) {
    const char* name = gguf_type_name(number);
    if (!name) fail(code::file_format, at, " has type ", number, ", which is no type of GGUF");
    fail(code::unsupported, at, " is of type ", name, " (", number,
         "), which this version does not read; it reads F32 F16 "
         "BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K");
  }
  tensor.type = type->type;
  if (tensor.shape[0] % type->block_values != 0) {
    fail(code::file_format, at, " is ", type->name, " with rows of ", tensor.shape[0],
         " values, expected a multiple of ", type->block_values);
  }
  const uint64_t blocks = values / type->block_values;
  if (blocks > kMostValues / type->block_bytes) {
    fail(code::file_format, at, " has the impossible shape ", shape_text(tensor.shape));
  }
  tensor.bytes = blocks * type->block_bytes;
  tensor.offset = cursor.number<uint64_t>("a tensor's offset");
  if (tensor.offset % alignment != 0) {
    fail(code::file_format, at, " starts at byte ", tensor.offset, " of the data, expected a multiple of ", alignment);
  }
  return {std::move(tensor), grouped};
}

/// Makes offsets relative to the file and sets the pointers, after checking that the tensors lie in the file.
std::vector<GgufTensor> place_tensors(const MappedFile& file, size_t infos_end, uint64_t alignment,
                                      std::vector<TensorInfo> infos) {
  const uint64_t data_start = (uint64_t(infos_end) + alignment - 1) / alignment * alignment;
  std::vector<GgufTensor> tensors;
  for (auto& [tensor, grouped] : infos) {
    const uint64_t room = file.size() > data_start ? file.size() - data_start : 0;
    if (tensor.offset > room || tensor.bytes > room - tensor.offset) {
      fail(code::file_format, file.path(), " is cut off or damaged: tensor ", quoted(tensor.name), " needs ",
           tensor.bytes, " bytes from byte ", tensor.offset, " of the data, which has ", room, " bytes");
    }
    tensor.offset += data_start;
    (grouped ? tensor.grouped : tensor.data) = file.data() + tensor.offset;
    tensors.push_back(std::move(tensor));
  }
  std::vector<const GgufTensor*> order;
  order.reserve(tensors.size());
  for (const GgufTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes) {
      fail(code::file_format, file.path(), ": the data of the tensors ", quoted(order[i - 1]->name), " and ",
           quoted(order[i]->name), " overlap");
    }
  }
  return tensors;
}

/// The path of part `part` (from 0) of `count`, or an empty string if `first` is not named as the first of so many.
std::string part_path(const std::string& first, uint64_t part, uint64_t count) {
  const auto ending = [&](uint64_t number) {
    char text[64];
    std::snprintf(text, sizeof text, "-%05llu-of-%05llu.gguf", static_cast<unsigned long long>(number),
                  static_cast<unsigned long long>(count));
    return std::string(text);
  };
  const std::string expected = ending(1);
  if (first.size() < expected.size() || first.compare(first.size() - expected.size(), expected.size(), expected) != 0)
    return "";
  return first.substr(0, first.size() - expected.size()) + ending(part + 1);
}

struct Part {
  uint32_t version = 0;
  Keys keys;
  std::unordered_map<std::string, size_t> key_index;
  std::vector<GgufTensor> tensors;
};

Part read_part(const MappedFile& file, GgufCursor::Budget& budget) {
  GgufCursor cursor(file, budget);
  Part part;
  part.version = read_gguf_version(file, cursor);
  // A tensor's info takes at least 32 bytes (name's length, dimensions, one size, type, offset), a key 13; each is held
  // twice, in the list and in the index.
  const uint64_t tensor_count = cursor.count("the number of tensors", 32, sizeof(GgufTensor) + 128);
  const uint64_t key_count = cursor.count("the number of keys", 13, sizeof(Keys::value_type) + 128);
  part.keys = read_keys(cursor, key_count, part.key_index);
  const uint64_t alignment = read_alignment(file.path(), part.keys);
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < tensor_count; ++i) infos.push_back(read_tensor_info(cursor, alignment));
  part.tensors = place_tensors(file, cursor.position(), alignment, std::move(infos));
  return part;
}

}  // namespace

std::string quoted(std::string_view name) {
  constexpr size_t kMost = 80;
  std::string text = "\"";
  for (const char c : name.substr(0, kMost)) text += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return text + (name.size() > kMost ? "...\"" : "\"");
}

uint64_t GgufTensor::values() const noexcept {
  uint64_t product = 1;
  for (const uint64_t size : shape) product *= size;
  return product;
}

GgufFile::GgufFile(const std::string& path) {
  GgufCursor::Budget budget;
  const auto add = [&](const std::string& part_file) {
    parts_.push_back(std::make_shared<const MappedFile>(part_file));
    Part part = read_part(*parts_.back(), budget);
    parts_.back()->check_unchanged();
    for (GgufTensor& tensor : part.tensors) {
      if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) {
        fail(code::file_format, part_file, " has a second tensor ", quoted(tensor.name), ", expected each name once");
      }
      tensor.part = parts_.size() - 1;
      tensors_.push_back(std::move(tensor));
    }
    part.tensors.clear();
    return part;
  };

  Part first = add(path);
  const uint64_t count = part_key(path, first.keys, "split.count", 1);
  const uint64_t number = part_key(path, first.keys, "split.no", 0);
  if (count > 1) {
    if (number != 0) {
      fail(code::file_format, path, " is part ", number + 1, " of ", count,
           " of a split model: give the path of the first part");
    }
    if (count > 99999 || part_path(path, 0, count).empty()) {
      fail(code::file_format, path, " is the first of ", count, " parts, so a name is expected that ends in -00001-of-",
           "NNNNN.gguf with that number");
    }
    for (uint64_t i = 1; i < count; ++i) {
      const std::string next = part_path(path, i, count);
      const Part other = add(next);
      const uint64_t other_number = part_key(next, other.keys, "split.no", UINT64_MAX);
      const uint64_t other_count = part_key(next, other.keys, "split.count", 1);
      if (other_number != i || other_count != count) {
        fail(code::file_format, next, " is not part ", i + 1, " of ", count, ": its keys say split.no ", other_number,
             " (expected ", i, ") and split.count ", other_count);
      }
    }
    const uint64_t expected = part_key(path, first.keys, "split.tensors.count", tensors_.size());
    if (expected != tensors_.size()) {
      fail(code::file_format, path, ": split.tensors.count is ", expected, ", the parts hold ", tensors_.size());
    }
  }
  version_ = first.version;
  keys_ = std::move(first.keys);
  key_index_ = std::move(first.key_index);
  apply_layout(*this, tensors_);
}

const std::string& GgufFile::path() const noexcept { return parts_.front()->path(); }

const GgufValue* GgufFile::find(std::string_view key) const noexcept {
  const auto found = key_index_.find(std::string(key));
  return found == key_index_.end() ? nullptr : &keys_[found->second].second;
}

const GgufTensor* GgufFile::tensor(std::string_view name) const noexcept {
  const auto found = tensor_index_.find(std::string(name));
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::check_unchanged() const {
  for (const auto& part : parts_) part->check_unchanged();
}

void GgufFile::release(const GgufTensor& tensor) const noexcept {
  parts_[tensor.part]->release(size_t(tensor.offset), size_t(tensor.bytes));
}

}  // namespace minigpt4
