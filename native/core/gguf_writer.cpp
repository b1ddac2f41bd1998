// Writes the header at once and then the tensors' rows as they come, encoding them on all cores.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <unordered_set>

#include <fcntl.h>
#include <unistd.h>

#include "core/block_layout.h"
#include "core/blocks.h"
#include "core/gguf.h"
#include "core/gguf_layout.h"
#include "core/gguf_value.h"

namespace minigpt4 {

namespace {

// Values encoded between two writes to the file: enough to keep all cores busy, little beside the largest tensor.
constexpr uint64_t kChunkValues = uint64_t(4) << 20;
// What one core encodes in less time than it takes to wake another.
constexpr uint64_t kAloneValues = 16384;

uint64_t rounded_up(uint64_t bytes, uint64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

uint64_t rows_of(const GgufTensorPlan& plan) {
  uint64_t rows = 1;
  for (size_t i = 1; i < plan.shape.size(); ++i) rows *= plan.shape[i];
  return rows;
}

/// What stands in the file: the plan itself, or bytes.
struct Stored {
  uint32_t type;
  std::vector<uint64_t> shape;
  uint64_t bytes;
};

Stored stored(const GgufTensorPlan& plan, const RowGroups* groups) {
  const uint64_t rows = rows_of(plan);
  if (!plan.grouped) return {uint32_t(plan.type), plan.shape, rows * row_bytes(plan.type, plan.shape[0])};
  const uint64_t count = groups->groups(rows), bytes = groups->group_bytes(plan.type, plan.shape[0]);
  return {kBytesType, {bytes, count}, bytes * count};
}

/// Refuses plans that no GGUF file can hold.
void check_plan(const GgufTensorPlan& plan, const RowGroups* groups, std::unordered_set<std::string>& names) {
  if (plan.name.empty()) fail(code::argument, "a tensor without a name cannot be written");
  if (!names.insert(plan.name).second) fail(code::argument, "tensor ", quoted(plan.name), " is planned twice");
  if (plan.shape.empty() || plan.shape.size() > 4) {
    fail(code::argument, "tensor ", quoted(plan.name), " has ", plan.shape.size(), " dimensions, expected 1 to 4");
  }
  const TypeInfo& type = info(plan.type);
  uint64_t values = 1;
  for (const uint64_t size : plan.shape) {
    if (size == 0 || size > (uint64_t(1) << 48) / values) {
      fail(code::argument, "tensor ", quoted(plan.name), " has a size of ", size, ", expected 1 to 2^48 values in all");
    }
    values *= size;
  }
  if (plan.shape[0] % type.block_values != 0) {
    fail(code::argument, "tensor ", quoted(plan.name), " cannot be ", type.name, ": its rows of ", plan.shape[0],
         " values are no multiple of ", type.block_values);
  }
  if (plan.grouped && (!groups || plan.shape.size() != 2)) {
    fail(code::argument, "tensor ", quoted(plan.name), " of ", plan.shape.size(),
         " dimensions is planned in groups of rows, expected ", groups ? "2 dimensions" : "a layout of them");
  }
}

std::string header(std::vector<std::pair<std::string, GgufValue>> keys, const std::vector<GgufTensorPlan>& tensors,
                   uint32_t alignment, const RowGroups* groups) {
  if (alignment < 8 || !std::has_single_bit(alignment)) {
    fail(code::argument, "an alignment is expected that is a power of two from 8, found ", alignment);
  }
  std::unordered_set<std::string> names;
  for (auto& key : layout_keys(tensors)) keys.push_back(std::move(key));
  uint64_t key_count = keys.size();
  bool alignment_given = false;
  std::string body;
  for (const auto& [key, value] : keys) {
    if (!names.insert(key).second) fail(code::argument, "key ", quoted(key), " is given twice");
    append_gguf_string(body, key);
    append_gguf_value(body, key, value);
    if (key != "general.alignment") continue;
    alignment_given = true;
    const uint64_t* given = std::get_if<uint64_t>(&value.value);
    if (!given || *given != alignment)
      fail(code::argument, "key general.alignment is given and is not the alignment ", alignment);
  }
  if (!alignment_given && alignment != 32) {
    append_gguf_string(body, "general.alignment");
    append_gguf_value(body, "general.alignment", GgufValue{4, 0, uint64_t(alignment)});
    ++key_count;
  }

  names.clear();
  uint64_t offset = 0;
  for (const GgufTensorPlan& plan : tensors) {
    check_plan(plan, groups, names);
    const Stored as = stored(plan, groups);
    append_gguf_string(body, plan.name);
    append_number(body, uint32_t(as.shape.size()));
    for (const uint64_t size : as.shape) append_number(body, size);
    append_number(body, as.type);
    append_number(body, offset);
    offset = rounded_up(offset + as.bytes, alignment);
  }

  std::string whole = "GGUF";
  append_number(whole, uint32_t(3));
  append_number(whole, uint64_t(tensors.size()));
  append_number(whole, key_count);
  return whole + body;
}

bool is_float_type(Type type) { return type == Type::F32 || type == Type::F16 || type == Type::BF16; }

}  // namespace

GgufWriter::GgufWriter(std::string path, const std::vector<std::pair<std::string, GgufValue>>& keys,
                       std::vector<GgufTensorPlan> tensors, uint32_t alignment, const RowGroups* groups)
    : path_(std::move(path)), tensors_(std::move(tensors)), alignment_(alignment), groups_(groups) {
  const std::string start = header(keys, tensors_, alignment_, groups_);
  part_path_ = path_ + ".part-" + std::to_string(getpid());
  file_ = std::fopen(part_path_.c_str(), "wb");
  if (!file_) fail(code::file_read, "cannot create ", part_path_, ": ", std::strerror(errno));
  try {
    put(start.data(), start.size());
    pad();
  } catch (...) {
    close_and_remove();
    throw;
  }
}

GgufWriter::~GgufWriter() { close_and_remove(); }

void GgufWriter::close_and_remove() noexcept {
  if (!file_) return;
  std::fclose(file_);
  file_ = nullptr;
  std::remove(part_path_.c_str());
}

const GgufTensorPlan* GgufWriter::current() const noexcept {
  return tensor_ < tensors_.size() ? &tensors_[tensor_] : nullptr;
}

void GgufWriter::put(const void* bytes, size_t count) {
  if (count != 0 && std::fwrite(bytes, 1, count, file_) != count) {
    fail(code::file_read, "cannot write to ", part_path_, " (after ", position_, " bytes): ", std::strerror(errno));
  }
  position_ += count;
}

void GgufWriter::pad() {
  const std::string zeros(size_t(rounded_up(position_, alignment_) - position_), '\0');
  put(zeros.data(), zeros.size());
}

void GgufWriter::write(Type source, const void* values, uint64_t count) {
  if (!file_) fail(code::argument, path_, " is finished: nothing can be added to it");
  const GgufTensorPlan* plan = current();
  if (!plan) fail(code::argument, path_, ": all ", tensors_.size(), " planned tensors are written already");
  const uint64_t width = plan->shape[0];
  const uint64_t all = width * rows_of(*plan);
  if (count % width != 0) {
    fail(code::argument, "tensor ", quoted(plan->name), " is written in whole rows of ", width, " values, found ",
         count);
  }
  if (count > all - written_) {
    fail(code::argument, "tensor ", quoted(plan->name), " takes ", all, " values, ", written_, " are written, found ",
         count, " more");
  }
  if (source == plan->type) {
    put_rows(static_cast<const std::byte*>(values), count / width, written_ + count == all);
  } else if (!is_float_type(source)) {
    fail(code::argument, "tensor ", quoted(plan->name), " is planned as ", name(plan->type), ", found ", name(source),
         "; F32, F16, BF16 or the planned type are expected");
  } else {
    encode(source, static_cast<const std::byte*>(values), count / width);
  }
  written_ += count;
  if (written_ == all) {
    pad();
    written_ = 0;
    ++tensor_;
  }
}

void GgufWriter::encode(Type source, const std::byte* values, uint64_t rows) {
  const GgufTensorPlan& plan = tensors_[tensor_];
  const uint64_t width = plan.shape[0];
  const size_t from_bytes = row_bytes(source, width), to_bytes = row_bytes(plan.type, width);
  if (!pool_ && rows * width > kAloneValues) pool_ = std::make_unique<ThreadPool>();
  const size_t threads = pool_ ? size_t(pool_->threads()) : 1;
  const uint64_t chunk_rows = std::min(rows, std::max<uint64_t>(1, kChunkValues / width));
  std::vector<std::byte> encoded(size_t(chunk_rows) * to_bytes);
  std::vector<std::vector<float>> floats(threads, std::vector<float>(size_t{width}));  // one row a thread
  for (uint64_t row = 0; row < rows; row += chunk_rows) {
    const uint64_t here = std::min(chunk_rows, rows - row);
    const auto encode_rows = [&](int64_t begin, int64_t end, int thread) {
      std::vector<float>& scratch = floats[size_t(thread)];
      for (int64_t i = begin; i < end; ++i) {
        decode_row(source, values + size_t(row + uint64_t(i)) * from_bytes, scratch.data(), width);
        encode_row(plan.type, scratch.data(), encoded.data() + size_t(i) * to_bytes, width);
      }
    };
    try {
      if (pool_) {
        pool_->parallel_for(int64_t(here), int64_t(std::max<uint64_t>(1, kAloneValues / width)), encode_rows);
      } else {
        encode_rows(0, int64_t(here), 0);
      }
    } catch (const Error& error) {
      fail(error.code(), "tensor ", quoted(plan.name), ": ", error.what());
    }
    put_rows(encoded.data(), here, written_ + (row + here) * width == width * rows_of(plan));
  }
}

/// Of the current tensor, in its type. `last`: none follow.
void GgufWriter::put_rows(const std::byte* rows, uint64_t count, bool last) {
  const GgufTensorPlan& plan = tensors_[tensor_];
  const uint64_t width = plan.shape[0];
  const size_t bytes = row_bytes(plan.type, width);
  if (!plan.grouped) return put(rows, bytes * size_t(count));
  ungrouped_.insert(ungrouped_.end(), rows, rows + bytes * size_t(count));
  const uint64_t have = ungrouped_.size() / bytes, whole = groups_->group_rows();
  const uint64_t groups = last ? groups_->groups(have) : have / whole;
  const size_t group_bytes = groups_->group_bytes(plan.type, width);
  std::vector<std::byte> packed(size_t(groups) * group_bytes);
  for (uint64_t g = 0; g < groups; ++g) {
    groups_->pack(plan.type, width, ungrouped_.data() + size_t(g * whole) * bytes, std::min(whole, have - g * whole),
                  packed.data() + size_t(g) * group_bytes);
  }
  put(packed.data(), packed.size());
  ungrouped_.erase(ungrouped_.begin(), ungrouped_.begin() + std::ptrdiff_t(std::min(have, groups * whole) * bytes));
}

void GgufWriter::finish() {
  if (!file_) fail(code::argument, path_, " is finished already");
  if (const GgufTensorPlan* plan = current()) {
    fail(code::argument, path_, " is not complete: tensor ", quoted(plan->name), " has ", written_, " of ",
         plan->shape[0] * rows_of(*plan), " values");
  }
  const bool flushed = std::fflush(file_) == 0 && fsync(fileno(file_)) == 0;
  const int reason = errno;
  if (!flushed) fail(code::file_read, "cannot write ", part_path_, ": ", std::strerror(reason));
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (!closed || std::rename(part_path_.c_str(), path_.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    std::remove(part_path_.c_str());
    fail(code::file_read, "cannot write ", path_, ": ", why);
  }
  // The rename itself reaches the disk with the folder; where a folder cannot be synced there is nothing more to do.
  const size_t slash = path_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int descriptor = open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) {
    fsync(descriptor);
    close(descriptor);
  }
}

}  // namespace minigpt4
