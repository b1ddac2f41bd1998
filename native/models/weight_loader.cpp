#include "models/weight_loader.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/blocks.h"
#include "core/error.h"
#include "core/gguf.h"

namespace minigpt4 {
namespace {

/// "[4096, 768]", row-major, of a shape in the file's order.
std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text = "[";
  for (size_t i = shape.size(); i-- > 0;) text += std::to_string(shape[i]) + (i ? ", " : "");
  return text + "]";
}

/// The tensor if it is there with this shape; null if it is absent and may be.
const GgufTensor* expect(const GgufFile& file, const std::string& name, const std::vector<uint64_t>& shape,
                         Presence presence) {
  const GgufTensor* tensor = file.tensor(name);
  if (!tensor) {
    if (presence == Presence::optional) return nullptr;
    fail(code::missing_tensor, file.path(), ": tensor ", name, " is missing, expected one of shape ",
         shape_text(shape));
  }
  std::vector<uint64_t> found = tensor->shape;  // trailing sizes of 1 carry no meaning
  while (found.size() > shape.size() && found.back() == 1) found.pop_back();
  if (found != shape) {
    fail(code::shape, file.path(), ": tensor ", name, " has shape ", shape_text(tensor->shape), ", expected ",
         shape_text(shape));
  }
  return tensor;
}

}  // namespace

WeightLoader::WeightLoader(Ops& ops, const GgufFile& file, const char* owner, std::function<void(uint64_t)> on_bytes)
    : ops_(ops),
      file_(file),
      owner_(owner),
      on_bytes_(std::move(on_bytes)),
      mapped_{std::string(owner) + " (mapped)", 0, 0, 0} {}

void WeightLoader::matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Matrix>& slot,
                          Presence presence) {
  const GgufTensor* tensor = expect(file_, name, {uint64_t(cols), uint64_t(rows)}, presence);
  if (!tensor) return;
  if (tensor->grouped) {
    slot = map(*tensor, rows, cols);
  } else {
    slot = ops_.matrix({tensor->type, rows, cols, tensor->data}, owner_);
    file_.release(*tensor);  // the backend holds its own layout now
  }
  parameters_ += rows * cols;
  if (on_bytes_) on_bytes_(tensor->bytes);
}

std::unique_ptr<Matrix> WeightLoader::map(const GgufTensor& tensor, int64_t rows, int64_t cols) {
  const std::shared_ptr<const MappedFile>& part = file_.part_of(tensor);
  // in one go: the first pass would wait at every few pages
  part->populate(size_t(tensor.offset), size_t(tensor.bytes));
  std::unique_ptr<Matrix> matrix;
  try {
    matrix = ops_.mapped_matrix({tensor.type, rows, cols, tensor.grouped, size_t(tensor.bytes), part});
  } catch (const Error& error) {
    fail(error.code(), file_.path(), ": tensor ", tensor.name, ": ", error.what());
  }
  if (!matrix) {
    fail(code::unsupported, file_.path(), " holds its matrices as the CPU computes with them, but ", ops_.describe(),
         " is to compute with ", tensor.name,
         ": load the file that it was made from (converted without --layout cpu), or", " take the CPU as the device");
  }
  mapped_files_.insert(part);
  mapped_.bytes += matrix->bytes;
  mapped_.peak = mapped_.bytes;
  mapped_.pieces += 1;
  return matrix;
}

std::optional<std::vector<float>> WeightLoader::read(const std::string& name, const std::vector<uint64_t>& shape,
                                                     Presence presence) {
  const GgufTensor* tensor = expect(file_, name, shape, presence);
  if (!tensor) return std::nullopt;
  if (tensor->grouped) {
    fail(code::file_format, file_.path(), ": tensor ", name, " lies in groups of rows, expected plain numbers");
  }
  if (is_quantized(tensor->type)) {
    fail(code::file_format, file_.path(), ": tensor ", name, " is ", minigpt4::name(tensor->type),
         ", expected F32, F16 or BF16");
  }
  std::vector<float> values(tensor->values());
  decode_row(tensor->type, tensor->data, values.data(), values.size());
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad != values.end()) {
    fail(code::file_format, file_.path(), ": tensor ", name, " holds ", *bad, " at ", bad - values.begin(),
         ", expected finite numbers: the file may be damaged");
  }
  parameters_ += int64_t(values.size());
  if (on_bytes_) on_bytes_(tensor->bytes);
  return values;
}

void WeightLoader::floats(const std::string& name, const std::vector<uint64_t>& shape, Floats& slot,
                          Presence presence) {
  const std::optional<std::vector<float>> values = read(name, shape, presence);
  if (!values) return;
  const size_t bytes = values->size() * sizeof(float);
  float* memory = static_cast<float*>(ops_.allocate(bytes, owner_));
  Ops* ops = &ops_;
  slot = Floats(memory, [ops](float* p) { ops->release(p); });
  ops_.upload(memory, values->data(), bytes);
}

void WeightLoader::numbers(const std::string& name, int64_t count, std::vector<float>& slot, Presence presence) {
  if (std::optional<std::vector<float>> values = read(name, {uint64_t(count)}, presence)) slot = std::move(*values);
}

}  // namespace minigpt4
