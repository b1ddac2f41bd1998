// GGUF files and rows of blocks.
#include "addon/classes.h"
#include "addon/task.h"
#include "addon/values.h"
#include "core/blocks.h"
#include "core/gguf.h"
#include "core/gguf_layout.h"
#include "ops/ops.h"

namespace minigpt4::addon {
namespace {

// A JavaScript value takes some 50 bytes and its making the event loop's time: far above any real vocabulary.
constexpr size_t kMostElements = 1 << 21;

/// ERR_UNSUPPORTED for a file whose arrays would swamp JavaScript's heap.
void check_arrays(const GgufFile& file) {
  size_t elements = 0;
  for (const auto& [key, value] : file.keys()) {
    std::visit(
        [&](const auto& v) {
          if constexpr (requires { v.size(); }) {
            if (value.type == kGgufArray) elements += v.size();
          }
        },
        value.value);
    if (elements > kMostElements) {
      fail(code::unsupported, file.path(), ": the metadata's arrays hold more than ", kMostElements,
           " elements at key ", key);
    }
  }
}

Napi::Object contents_of(Napi::Env env, const GgufFile& file) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("version", file.version());
  Napi::Array keys = Napi::Array::New(env, file.keys().size());
  uint32_t i = 0;
  for (const auto& [key, value] : file.keys()) keys.Set(i++, from_gguf_key(env, key, value));
  object.Set("keys", keys);
  Napi::Array tensors = Napi::Array::New(env, file.tensors().size());
  i = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", tensor.name);
    entry.Set("type", from_type(env, tensor.type));
    Napi::Array shape = Napi::Array::New(env, tensor.shape.size());
    for (size_t d = 0; d < tensor.shape.size(); ++d) {
      shape.Set(uint32_t(d), double(tensor.shape[tensor.shape.size() - 1 - d]));
    }
    entry.Set("shape", shape);
    entry.Set("bytes", double(tensor.bytes));
    entry.Set("grouped", tensor.grouped != nullptr);
    tensors.Set(i++, entry);
  }
  object.Set("tensors", tensors);
  return object;
}

Napi::Value read_gguf(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string path = to_string(info[0], "path");
    return Task::start(info.Env(), [path]() -> Finish {
      auto file = std::make_shared<GgufFile>(path);
      check_arrays(*file);
      return [file](Napi::Env env) -> Napi::Value { return contents_of(env, *file); };
    });
  });
}

std::vector<float> decoded(const GgufTensor& tensor) {
  std::vector<float> values(tensor.values());
  decode_row(tensor.type, tensor.data, values.data(), values.size());
  return values;
}

/// The rows of a matrix in the CPU's layout.
std::vector<float> ungrouped(const GgufFile& file, const GgufTensor& tensor) {
  const RowGroups& layout = cpu_row_groups();
  const uint64_t cols = tensor.shape[0], rows = tensor.shape[1], each = layout.group_rows();
  const uint64_t groups = layout.groups(rows);
  const size_t bytes = layout.group_bytes(tensor.type, cols);
  if (tensor.bytes % bytes != 0 || tensor.bytes / bytes != groups) {
    fail(code::file_format, file.path(), ": tensor ", tensor.name, " has ", tensor.bytes, " bytes, expected ", groups,
         " groups of ", bytes);
  }
  std::vector<float> values(tensor.values());
  for (uint64_t row = 0; row < rows; ++row) {
    layout.unpack(tensor.type, cols, tensor.grouped + row / each * bytes, row % each, values.data() + row * cols);
  }
  return values;
}

Napi::Value read_tensor(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string path = to_string(info[0], "path"), tensor_name = to_string(info[1], "name");
    return Task::start(info.Env(), [path, tensor_name]() -> Finish {
      const GgufFile file(path);
      const GgufTensor* tensor = file.tensor(tensor_name);
      if (!tensor) fail(code::missing_tensor, path, ": tensor ", tensor_name, " is missing");
      auto values = std::make_shared<std::vector<float>>(tensor->grouped ? ungrouped(file, *tensor) : decoded(*tensor));
      file.check_unchanged();
      return [values](Napi::Env env) -> Napi::Value { return from_floats(env, *values); };
    });
  });
}

class NativeGgufWriter : public Napi::ObjectWrap<NativeGgufWriter> {
 public:
  explicit NativeGgufWriter(const Napi::CallbackInfo& info) : ObjectWrap(info), writer_(payload_of<GgufWriter>(info)) {}

  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeGgufWriter",
        {InstanceMethod<&NativeGgufWriter::write>("write"), InstanceMethod<&NativeGgufWriter::finish>("finish"),
         InstanceMethod<&NativeGgufWriter::discard>("discard")});
  }

 private:
  std::shared_ptr<GgufWriter> writer_;  // null after finish and discard
  bool busy_ = false;                   // a call is under way: the order of two would be open

  std::shared_ptr<GgufWriter> idle() const {
    if (!writer_) fail(code::closed, "this file is finished or discarded, expected one that is being written");
    if (busy_) fail(code::argument, "a write is under way: await each call before the next");
    return writer_;
  }

  /// Runs `work` on the pool; `this` stays alive meanwhile.
  Napi::Value start(Napi::Env env, std::function<void()> work) {
    busy_ = true;
    return Task::start(
        env,
        [work = std::move(work)]() -> Finish {
          work();
          return [](Napi::Env e) { return e.Undefined(); };
        },
        {Value()}, [this] { busy_ = false; });
  }

  Napi::Value write(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const Type source = to_type(info[0], "source type");
      const Bytes bytes = to_bytes(info[1], "values");
      const TypeInfo& type = minigpt4::info(source);
      if (bytes.size % type.block_bytes != 0) {
        fail(code::argument, "values: ", bytes.size, " bytes are no whole number of ", type.name, " blocks of ",
             type.block_bytes);
      }
      const uint64_t count = bytes.size / type.block_bytes * type.block_values;
      auto copy = std::make_shared<std::vector<uint8_t>>(bytes.data, bytes.data + bytes.size);
      return start(info.Env(), [writer = idle(), source, copy, count] { writer->write(source, copy->data(), count); });
    });
  }

  Napi::Value finish(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      auto writer = idle();
      writer_.reset();
      return start(info.Env(), [writer] { writer->finish(); });
    });
  }

  Napi::Value discard(const Napi::CallbackInfo& info) {
    writer_.reset();  // its destructor removes the unfinished file, after a write that is under way
    return info.Env().Undefined();
  }
};

Napi::Value create_writer(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const std::string path = to_string(info[0], "path");
    const Napi::Array keys = to_array(info[1], "keys"), tensors = to_array(info[2], "tensors");
    std::vector<std::pair<std::string, GgufValue>> native_keys;
    for (uint32_t i = 0; i < keys.Length(); ++i) native_keys.push_back(to_gguf_key(keys.Get(i)));
    std::vector<GgufTensorPlan> plan;
    bool grouped = false;
    for (uint32_t i = 0; i < tensors.Length(); ++i) {
      const Napi::Object entry = to_object(tensors.Get(i), "tensor");
      GgufTensorPlan tensor;
      tensor.name = to_string(entry.Get("name"), "tensor name");
      tensor.type = to_type(entry.Get("type"), tensor.name.c_str());
      const Napi::Array shape = to_array(entry.Get("shape"), tensor.name.c_str());
      for (uint32_t d = shape.Length(); d-- > 0;) {
        tensor.shape.push_back(uint64_t(to_integer(shape.Get(d), tensor.name.c_str(), 1, int64_t(1) << 48)));
      }
      tensor.grouped = has(entry, "grouped") && to_bool(entry.Get("grouped"), tensor.name.c_str());
      grouped = grouped || tensor.grouped;
      plan.push_back(std::move(tensor));
    }
    const uint32_t alignment = grouped ? uint32_t(kGroupAlignment) : 32;
    auto writer = std::make_unique<GgufWriter>(path, native_keys, std::move(plan), alignment, &cpu_row_groups());
    return make(env.GetInstanceData<AddonData>()->gguf_writer, std::move(writer));
  });
}

/// Rows in `size` bytes (or values) when a row takes `row`; ERR_ARGUMENT unless whole.
uint64_t whole_rows(uint64_t size, uint64_t row, const char* what) {
  if (row == 0 || size % row != 0) fail(code::argument, what, ": ", size, " is no whole number of rows of ", row);
  return size / row;
}

Napi::Value encode_rows(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Type type = to_type(info[0], "type");
    const uint64_t length = uint64_t(to_integer(info[1], "row length", 1, int64_t(1) << 32));
    const std::vector<float> values = to_floats(info[2], "values");
    const uint64_t rows = whole_rows(values.size(), length, "values");
    const size_t bytes = row_bytes(type, length);
    std::vector<uint8_t> out(rows * bytes);
    for (uint64_t r = 0; r < rows; ++r) encode_row(type, values.data() + r * length, out.data() + r * bytes, length);
    return from_bytes(info.Env(), out.data(), out.size());
  });
}

Napi::Value decode_rows(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Type type = to_type(info[0], "type");
    const uint64_t length = uint64_t(to_integer(info[1], "row length", 1, int64_t(1) << 32));
    const Bytes bytes = to_bytes(info[2], "bytes");
    const size_t row = row_bytes(type, length);
    const uint64_t rows = whole_rows(bytes.size, row, "bytes");
    std::vector<float> values(rows * length);
    for (uint64_t r = 0; r < rows; ++r) decode_row(type, bytes.data + r * row, values.data() + r * length, length);
    return from_floats(info.Env(), values);
  });
}

Napi::Value add_half(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Bytes a = to_bytes(info[0], "a"), b = to_bytes(info[1], "b");
    if (a.size != b.size || a.size % 2 != 0) {
      fail(code::argument, "half floats: ", a.size, " and ", b.size, " bytes, expected two equal, even lengths");
    }
    auto out = Napi::Uint8Array::New(info.Env(), a.size);
    for (size_t i = 0; i < a.size; i += 2) {
      const auto half = [i](const uint8_t* p) { return half_to_float(uint16_t(p[i] | p[i + 1] << 8)); };
      const uint16_t sum = float_to_half(half(a.data) + half(b.data));
      out.Data()[i] = uint8_t(sum);
      out.Data()[i + 1] = uint8_t(sum >> 8);
    }
    return out;
  });
}

}  // namespace

void define_files(Napi::Env env, Napi::Object exports, AddonData& data) {
  data.gguf_writer = Napi::Persistent(NativeGgufWriter::define(env));
  exports.Set("readGguf", Napi::Function::New(env, read_gguf, "readGguf"));
  exports.Set("readGgufTensor", Napi::Function::New(env, read_tensor, "readGgufTensor"));
  exports.Set("createGgufWriter", Napi::Function::New(env, create_writer, "createGgufWriter"));
  exports.Set("encodeRows", Napi::Function::New(env, encode_rows, "encodeRows"));
  exports.Set("decodeRows", Napi::Function::New(env, decode_rows, "decodeRows"));
  exports.Set("addHalf", Napi::Function::New(env, add_half, "addHalf"));
}

}  // namespace minigpt4::addon
