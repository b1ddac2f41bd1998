// Brings the tensors of a file into a backend, checking each one's name, shape and type against the tensor list.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "models/tensor_list.h"

namespace minigpt4 {

class GgufFile;
class MappedFile;
struct GgufTensor;

class WeightLoader : public TensorVisitor {
 public:
  /// `owner`: under which name the memory is reported. `on_bytes` (may be empty): called with the bytes of each tensor read.
  /// Errors of the visits: ERR_MISSING_TENSOR, ERR_SHAPE, ERR_FILE_FORMAT (floats() of a quantized tensor or of values that
  /// are not finite; a matrix's values are not looked at), ERR_UNSUPPORTED (a matrix in groups of rows, which this backend does
  /// not take), ERR_OUT_OF_MEMORY. Whether the file stayed as it was is for GgufFile::check_unchanged to say, after all visits.
  WeightLoader(Ops& ops, const GgufFile& file, const char* owner, std::function<void(uint64_t)> on_bytes);

  void matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Matrix>& slot,
              Presence presence) override;
  void floats(const std::string& name, const std::vector<uint64_t>& shape, Floats& slot, Presence presence) override;
  void numbers(const std::string& name, int64_t count, std::vector<float>& slot, Presence presence) override;
  /// Values of all tensors read so far.
  int64_t parameters() const { return parameters_; }
  /// Of all matrices so far that stay in the file, and the parts of the file that hold them.
  const Holding& mapped() const { return mapped_; }
  const std::set<std::shared_ptr<const MappedFile>>& mapped_files() const { return mapped_files_; }

 private:
  Ops& ops_;
  const GgufFile& file_;
  const char* owner_;
  std::function<void(uint64_t)> on_bytes_;
  int64_t parameters_ = 0;
  Holding mapped_;
  std::set<std::shared_ptr<const MappedFile>> mapped_files_;

  /// A matrix in groups of rows, used where it lies.
  std::unique_ptr<Matrix> map(const GgufTensor& tensor, int64_t rows, int64_t cols);
  /// The values of a tensor that is not quantized, all finite. None: it is absent and may be.
  std::optional<std::vector<float>> read(const std::string& name, const std::vector<uint64_t>& shape,
                                         Presence presence);
};

}  // namespace minigpt4
