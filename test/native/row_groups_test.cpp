// Matrices in the CPU's layout: into a file and out of it, computed with where they lie, and files that lie about them.
#include "core/row_groups.h"

#include <cstring>

#include "check.h"
#include "core/gguf.h"
#include "core/gguf_layout.h"
#include "ops_case.h"
#include "temporary_folder.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

constexpr int64_t kCols = 512;

std::vector<Type> all_types() {
  std::vector<Type> types = float_types();
  types.insert(types.end(), block_types().begin(), block_types().end());
  return types;
}

/// Writes matrices of kCols columns; their rows come in pieces that do not end where groups do.
void write(const std::string& path, Type type, const std::vector<std::pair<std::string, int64_t>>& matrices,
           uint64_t seed) {
  std::vector<GgufTensorPlan> plans;
  for (const auto& [name, rows] : matrices) plans.push_back({name, type, {kCols, uint64_t(rows)}, true});
  plans.push_back({"norm", Type::F32, {3}});
  GgufWriter writer(path, {}, plans, kGroupAlignment, &cpu_row_groups());
  const size_t row = row_bytes(type, kCols);
  for (const auto& [name, rows] : matrices) {
    const std::vector<uint8_t> bytes = weights(type, rows, kCols, seed + uint64_t(rows));
    for (int64_t at = 0; at < rows; at += 7) {
      writer.write(type, bytes.data() + size_t(at) * row, uint64_t(std::min<int64_t>(7, rows - at) * kCols));
    }
  }
  const float norm[] = {1, 2, 3};
  writer.write(Type::F32, norm, 3);
  writer.finish();
}

GroupedView view_of(const GgufFile& file, const GgufTensor& tensor) {
  return {tensor.type,    int64_t(tensor.shape[1]), int64_t(tensor.shape[0]),
          tensor.grouped, size_t(tensor.bytes),     file.part_of(tensor)};
}

/// FNV-1a.
uint64_t sum_of(const std::vector<uint8_t>& bytes) {
  uint64_t sum = 0xcbf29ce484222325u;
  for (const uint8_t byte : bytes) sum = (sum ^ byte) * 0x100000001b3u;
  return sum;
}

}  // namespace

TEST("row groups: a file of them is computed with where it lies, to the same bits") {
  const check::TemporaryFolder folder;
  const std::string path = folder.path("groups.gguf");
  for (const Type type : all_types()) {
    const std::vector<std::pair<std::string, int64_t>> matrices = {{"a", 1}, {"b", 16}, {"c", 37}, {"d", 64}};
    write(path, type, matrices, 5);
    auto file = std::make_unique<GgufFile>(path);
    CHECK_EQUAL(file->tensor("norm")->shape.size(), 1u);
    CHECK(file->tensor("norm")->data && !file->tensor("norm")->grouped);
    for (const auto& [name, rows] : matrices) {
      const GgufTensor& tensor = *file->tensor(name);
      CHECK_EQUAL(int(tensor.type), int(type));
      CHECK(tensor.shape == (std::vector<uint64_t>{kCols, uint64_t(rows)}));
      CHECK(!tensor.data && tensor.grouped);  // nobody takes groups for rows
      const std::vector<uint8_t> blocks = weights(type, rows, kCols, 5 + uint64_t(rows));
      const std::string what = std::string(minigpt4::name(type)) + " " + name;

      const RowGroups& layout = cpu_row_groups();
      Floats values(size_t(rows * kCols));
      for (int64_t row = 0; row < rows; ++row) {
        const size_t group = size_t(row) / layout.group_rows() * layout.group_bytes(type, kCols);
        layout.unpack(type, kCols, tensor.grouped + group, uint64_t(row) % layout.group_rows(), &values[row * kCols]);
      }
      same_bits(what + " unpacked", values, decoded(type, blocks, rows, kCols));

      constexpr int T = 3;
      const Floats x = normal(size_t(T * kCols), 6), dy = normal(size_t(T * rows), 7);
      std::vector<int32_t> ids;
      for (int t = 0; t < T; ++t) ids.push_back(int32_t(rows - 1) * t / (T - 1));
      const auto computed = [&](Ops& ops, const Matrix& w) {
        const OnDevice<float> in(ops, x), dout(ops, dy), y(ops, dy.size()), dx(ops, x.size()), rows_of(ops, x.size());
        const OnDevice<int32_t> chosen(ops, ids);
        ops.matmul(y, w, in, nullptr, T, Accumulate::no);
        ops.matmul_dx(dx, w, dout, T, Accumulate::no);
        ops.embed(rows_of, w, chosen, T);
        Floats all = y.values();
        for (const Floats& more : {dx.values(), rows_of.values()}) all.insert(all.end(), more.begin(), more.end());
        return all;
      };
      for (const std::string& level : cpu_levels()) {
        Ops& ops = cpu(level, 2);
        const std::unique_ptr<Matrix> mapped = ops.mapped_matrix(view_of(*file, tensor));
        CHECK_EQUAL(mapped->bytes, size_t(tensor.bytes));
        const std::unique_ptr<Matrix> packed = ops.matrix({type, rows, kCols, blocks.data()}, "test");
        same_bits(what + " on " + level, computed(ops, *mapped), computed(ops, *packed));
      }
    }
    // the mapping stays as long as a matrix needs it
    const std::vector<uint8_t> blocks = weights(type, 37, kCols, 5 + 37);
    Ops& ops = cpu(cpu_levels().back(), 1);
    const std::unique_ptr<Matrix> left = ops.mapped_matrix(view_of(*file, *file->tensor("c")));
    file.reset();
    const OnDevice<int32_t> last(ops, std::vector<int32_t>{36});
    const OnDevice<float> row(ops, size_t(kCols));
    ops.embed(row, *left, last, 1);
    const Floats all = decoded(type, blocks, 37, kCols);
    same_bits("after the file was let go", row.values(), Floats(all.end() - kCols, all.end()));
  }
}

TEST("row groups: the bytes of every type are those of the layout's version") {
  // Whoever changes one of these raises the version in core/gguf_layout.cpp: files hold what they stand for.
  const std::vector<std::pair<Type, uint64_t>> sums = {
      {Type::F32, 0x5749455446d3fa5u},   {Type::F16, 0xb974fa47def67d9au},  {Type::BF16, 0xb974fa47def67d9au},
      {Type::Q4_0, 0xa102e0e115b0b213u}, {Type::Q4_1, 0x52f30cbf421aa27eu}, {Type::Q5_0, 0x44fe41dbcb544da8u},
      {Type::Q5_1, 0xc4f59b437a4014cu},  {Type::Q8_0, 0xb9d5001b9afa7625u}, {Type::Q2_K, 0xb79bc2b7e470c471u},
      {Type::Q3_K, 0xf160612876af792cu}, {Type::Q4_K, 0x9b26d7e779d5d5f6u}, {Type::Q5_K, 0xb60fa3970bb1d277u},
      {Type::Q6_K, 0x38e09924f8dd2051u}};
  CHECK_EQUAL(sums.size(), all_types().size());
  const RowGroups& layout = cpu_row_groups();
  for (const auto& [type, expected] : sums) {
    constexpr int64_t rows = 13;  // and three that are missing
    std::vector<uint8_t> source(size_t(rows) * row_bytes(type, kCols));
    for (size_t i = 0; i < source.size(); ++i) source[i] = uint8_t(i * 2654435761u >> 13);
    std::vector<uint8_t> group(layout.group_bytes(type, kCols));
    layout.pack(type, kCols, source.data(), rows, group.data());
    if (sum_of(group) != expected)
      check::failed(__FILE__, __LINE__, std::string(name(type)) + " " + std::to_string(sum_of(group)));
  }
}

TEST("row groups: files whose keys do not fit their tensors") {
  const check::TemporaryFolder folder;
  const std::string path = folder.path("groups.gguf");
  write(path, Type::Q4_0, {{"a", 20}, {"b", 3}}, 8);
  const std::string good = folder.bytes("groups.gguf");
  const auto number = [](auto value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); };
  const auto text = [&](const std::string& value) { return number(uint64_t(value.size())) + value; };
  /// The file with the first `from` in it replaced by as many bytes.
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const size_t at = bytes.find(from);
    CHECK(at != std::string::npos && from.size() == to.size());
    bytes.replace(at, from.size(), to);
    return folder.file("changed.gguf", bytes);
  };
  const auto keyed = [&](const char* key, uint32_t type) { return text(key) + number(type); };

  CHECK_EQUAL(GgufFile(path).tensors().size(), 3u);
  // another layout, another version: what to do stands in the message
  const std::string layout = keyed("minigpt4.layout", 8), version = keyed("minigpt4.layout.version", 4);
  CHECK_ERROR(code::unsupported, "layout \"gpu\"", GgufFile(changed(layout + text("cpu"), layout + text("gpu"))));
  for (const uint32_t other : {0u, 1u, 3u}) {
    CHECK_ERROR(code::unsupported, "convert the model again",
                GgufFile(changed(version + number(uint32_t(2)), version + number(other))));
  }
  CHECK_ERROR(code::file_format, "minigpt4.layout.version",
              GgufFile(changed(version, keyed("minigpt4.layout.versioN", 4))));
  // 8-bit integers that no key speaks of
  CHECK_ERROR(code::unsupported, "of type I8 (24)", GgufFile(changed(layout, keyed("minigpt4.layouT", 8))));
  const std::string names = keyed("minigpt4.layout.tensors", 9) + number(uint32_t(8)) + number(uint64_t(2));
  CHECK_ERROR(code::file_format, "once",
              GgufFile(changed(names + text("a") + text("b"), names + text("a") + text("a"))));
  CHECK_ERROR(code::file_format, "once", GgufFile(changed(names + text("a"), names + text("x"))));
  const std::string fewer = names.substr(0, names.size() - 8) + number(uint64_t(1));
  CHECK_ERROR(code::file_format, "", GgufFile(changed(names, fewer)));
  // types and shapes
  const std::string types = keyed("minigpt4.layout.types", 9) + number(uint32_t(4)) + number(uint64_t(2));
  for (const uint32_t type : {24u, 200u}) {
    CHECK_ERROR(code::file_format, "no type that is read",
                GgufFile(changed(types + number(uint32_t(2)), types + number(type))));
  }
  const std::string shapes = keyed("minigpt4.layout.shapes", 9) + number(uint32_t(10)) + number(uint64_t(4));
  const std::string shape = shapes + number(uint64_t(kCols)) + number(uint64_t(20));
  for (const auto& [cols, rows] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, 20}, {512, 0}, {500, 20}, {512, UINT64_MAX / 2}, {uint64_t(1) << 62, 20}, {512, 20000}}) {
    CHECK_ERROR(code::file_format, "cannot be", GgufFile(changed(shape, shapes + number(cols) + number(rows))));
  }
  // shapes that could be, but ask for other bytes: told before anything is computed
  Ops& ops = cpu(cpu_levels().back(), 1);
  for (const auto& [cols, rows] :
       std::vector<std::pair<uint64_t, uint64_t>>{{512, 33}, {512, 16}, {544, 20}, {256, 20}}) {
    const GgufFile file(changed(shape, shapes + number(cols) + number(rows)));
    CHECK_ERROR(code::file_format, "groups of", ops.mapped_matrix(view_of(file, *file.tensor("a"))));
  }
  const GgufFile other(changed(types + number(uint32_t(2)), types + number(uint32_t(3))));
  CHECK_ERROR(code::file_format, "Q4_1", ops.mapped_matrix(view_of(other, *other.tensor("a"))));
  // cut off anywhere
  for (const size_t left : {good.size() / 4, good.size() / 2, good.size() - 100}) {
    CHECK_ERROR(code::file_format, "", GgufFile(folder.file("cut.gguf", good.substr(0, left))));
  }
}

TEST("row groups: places, bytes and uses that a matrix in a file refuses") {
  const check::TemporaryFolder folder;
  const std::string path = folder.path("groups.gguf");
  write(path, Type::F32, {{"a", 20}}, 9);
  const GgufFile file(path);
  Ops& ops = cpu(cpu_levels().back(), 1);
  GroupedView view = view_of(file, *file.tensor("a"));
  const std::unique_ptr<Matrix> mapped = ops.mapped_matrix(view);
  const OnDevice<float> values(ops, size_t(20 * kCols));
  CHECK_ERROR(code::argument, "in a file", ops.refill(*mapped, values));
  view.data = static_cast<const std::byte*>(view.data) - 32;
  CHECK_ERROR(code::file_format, "multiple of 64", ops.mapped_matrix(view));

  const auto plan = [&](std::vector<uint64_t> shape, const RowGroups* groups) {
    GgufWriter(folder.path("plan.gguf"), {}, {{"a", Type::F32, std::move(shape), true}}, kGroupAlignment, groups);
  };
  CHECK_ERROR(code::argument, "2 dimensions", plan({32}, &cpu_row_groups()));
  CHECK_ERROR(code::argument, "2 dimensions", plan({32, 2, 2}, &cpu_row_groups()));
  CHECK_ERROR(code::argument, "a layout of them", plan({32, 2}, nullptr));
}
