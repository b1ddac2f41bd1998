// GGUF written and read again, a file of llama.cpp's tools, and damaged files byte by byte.
#include "core/gguf.h"

#include <cmath>
#include <cstring>

#include "check.h"
#include "core/blocks.h"
#include "core/rng.h"
#include "temporary_folder.h"

using namespace minigpt4;

namespace {

using Keys = std::vector<std::pair<std::string, GgufValue>>;

// A GGUF file by hand, so that the reader is tested against the format and not against our writer.
struct Bytes {
  std::string all;
  template <class Number>
  Bytes& number(Number value) {
    all.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& text(const std::string& value) {
    number(uint64_t(value.size()));
    all += value;
    return *this;
  }
  Bytes& key(const std::string& name, uint32_t type) { return text(name).number(type); }
  Bytes& tensor(const std::string& name, std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    text(name).number(uint32_t(shape.size()));
    for (const uint64_t size : shape) number(size);
    return number(type).number(offset);
  }
  Bytes& pad() {
    all.resize((all.size() + 31) / 32 * 32);
    return *this;
  }
};

Bytes head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  Bytes bytes;
  bytes.all = "GGUF";
  return bytes.number(version).number(tensors).number(keys);
}

/// One F32 tensor "w" of 4 values.
std::string one_tensor() {
  return head(1, 1)
      .key("a", 4)
      .number(uint32_t(5))
      .tensor("w", {4}, 0, 0)
      .pad()
      .number(1.f)
      .number(2.f)
      .number(3.f)
      .number(4.f)
      .all;
}

const check::TemporaryFolder& folder() {
  static const check::TemporaryFolder made;
  return made;
}

/// The code and message of opening these bytes, or "" if they open.
std::string refusal(const std::string& bytes) {
  try {
    const GgufFile file(folder().file("input.gguf", bytes));
    return "";
  } catch (const Error& error) {
    return std::string(error.code()) + ": " + error.what();
  }
}

bool says(const std::string& text, const std::string& code, const std::string& words) {
  const bool good = text.find(code) == 0 && text.find(words) != std::string::npos;
  if (!good) std::printf("  expected %s ... %s\n  found    %s\n", code.c_str(), words.c_str(), text.c_str());
  return good;
}

const std::string kFormat = code::file_format, kUnsupported = code::unsupported;

}  // namespace

TEST("gguf: keys of every type") {
  Bytes bytes = head(0, 17);
  bytes.key("u8", 0).number(uint8_t(200)).key("i8", 1).number(int8_t(-5)).key("u16", 2).number(uint16_t(60000));
  bytes.key("i16", 3)
      .number(int16_t(-300))
      .key("u32", 4)
      .number(uint32_t(4000000000))
      .key("i32", 5)
      .number(int32_t(-70000));
  bytes.key("f32", 6).number(0.1f).key("bool", 7).number(uint8_t(1)).key("string", 8).text("hello");
  bytes.key("u64", 10).number(UINT64_MAX).key("i64", 11).number(INT64_MIN).key("f64", 12).number(0.1);
  bytes.key("floats", 9).number(uint32_t(6)).number(uint64_t(2)).number(1.5f).number(-2.f);
  bytes.key("strings", 9).number(uint32_t(8)).number(uint64_t(2)).text("").text("b");
  bytes.key("integers", 9).number(uint32_t(5)).number(uint64_t(2)).number(int32_t(-1)).number(int32_t(7));
  bytes.key("bytes", 9).number(uint32_t(0)).number(uint64_t(1)).number(uint8_t(255));
  bytes.key("empty", 9).number(uint32_t(6)).number(uint64_t(0));
  const GgufFile file(folder().file("keys.gguf", bytes.all));
  CHECK_EQUAL(file.keys().size(), 17u);
  CHECK_EQUAL(file.keys()[1].first, "i8");
  CHECK_EQUAL(file.unsigned_key("u8"), 200u);
  CHECK_EQUAL(file.unsigned_key("u16"), 60000u);
  CHECK_EQUAL(file.unsigned_key("u32"), 4000000000u);
  CHECK_EQUAL(file.unsigned_key("u64"), UINT64_MAX);
  CHECK_EQUAL(std::get<int64_t>(file.find("i8")->value), -5);
  CHECK_EQUAL(std::get<int64_t>(file.find("i16")->value), -300);
  CHECK_EQUAL(std::get<int64_t>(file.find("i32")->value), -70000);
  CHECK_EQUAL(std::get<int64_t>(file.find("i64")->value), INT64_MIN);
  CHECK_EQUAL(file.float_key("f32"), double(0.1f));
  CHECK_EQUAL(file.float_key("f64"), 0.1);
  CHECK_EQUAL(file.bool_key("bool", false), true);
  CHECK_EQUAL(file.string_key("string"), "hello");
  CHECK(file.floats_key("floats") == (std::vector<double>{1.5, -2}));
  CHECK(file.floats_key("empty").empty());
  CHECK(file.strings_key("strings") == (std::vector<std::string>{"", "b"}));
  CHECK(file.integers_key("integers") == (std::vector<int64_t>{-1, 7}));
  CHECK(file.integers_key("bytes") == (std::vector<int64_t>{255}));

  CHECK_EQUAL(file.unsigned_key("none", 3), 3u);
  CHECK_EQUAL(file.float_key("none", 2.5), 2.5);
  CHECK_EQUAL(file.bool_key("none", true), true);
  CHECK_EQUAL(file.string_key("none", "x"), "x");
  CHECK(file.find("none") == nullptr && file.tensor("none") == nullptr);
  CHECK_ERROR(code::file_format, "no key none", file.unsigned_key("none"));
  CHECK_ERROR(code::file_format, "is -5, expected no negative", file.unsigned_key("i8", 1));
  CHECK_ERROR(code::file_format, "is string, expected an integer", file.unsigned_key("string", 1));
  CHECK_ERROR(code::file_format, "is u32, expected f32", file.float_key("u32"));
  CHECK_ERROR(code::file_format, "is u8, expected a bool", file.bool_key("u8", true));
  CHECK_ERROR(code::file_format, "is array of f32, expected a string", file.string_key("floats"));
  CHECK_ERROR(code::file_format, "expected an array of strings", file.strings_key("floats"));
  CHECK_ERROR(code::file_format, "expected an array of integers", file.integers_key("floats"));
  CHECK_ERROR(code::file_format, "expected an array of f32", file.floats_key("integers"));
}

TEST("gguf: tensors, version 2 and 3") {
  for (const uint32_t version : {2u, 3u}) {
    Bytes bytes = head(2, 1, version);
    bytes.key("general.alignment", 4).number(uint32_t(32));
    bytes.tensor("second", {32, 2}, 8, 32).tensor("first", {3}, 0, 0).pad();
    const size_t data = bytes.all.size();
    bytes.number(1.f).number(2.f).number(3.f).pad();
    for (int row = 0; row < 2; ++row) {
      bytes.number(uint16_t(0x3c00));  // 1
      for (int i = 0; i < 32; ++i) bytes.number(int8_t(row * 100 - i));
    }
    const GgufFile file(folder().file("tensors.gguf", bytes.all));
    CHECK_EQUAL(file.version(), version);
    CHECK_EQUAL(file.tensors().size(), 2u);
    CHECK_EQUAL(file.tensors()[0].name, "second");
    const GgufTensor& second = *file.tensor("second");
    CHECK_EQUAL(second.bytes, 68u);
    CHECK_EQUAL(second.values(), 64u);
    CHECK_EQUAL(second.offset, data + 32);
    float row[32];
    decode_row(second.type, second.data + 34, row, 32);
    CHECK_EQUAL(row[31], 69.f);
    file.release(second);
    file.check_unchanged();
  }
}

TEST("gguf: a file cut off anywhere is an error") {
  const std::string whole = one_tensor();
  CHECK_EQUAL(refusal(whole), "");
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::string found = refusal(whole.substr(0, length));
    CHECK(found.find(kFormat) == 0);
    CHECK(found.find("input.gguf") != std::string::npos);
  }
  CHECK(says(refusal(whole.substr(0, 12)), kFormat,
             "expected the number of tensors (8 bytes) at byte 8, the file has 12 bytes"));
  CHECK(says(refusal(whole.substr(0, 20)), kFormat,
             "at byte 8 is 1, for which the 4 bytes left in the file are too few"));
  CHECK(says(refusal(whole.substr(0, whole.size() - 1)), kFormat,
             "tensor \"w\" needs 16 bytes from byte 0 of the data, which has 15"));
}

TEST("gguf: other files are named") {
  CHECK(says(refusal("tjgg and more"), kUnsupported, "GGJT"));
  CHECK(says(refusal("lmgg"), kUnsupported, "GGML file"));
  CHECK(says(refusal(std::string("PK\x03\x04 and more")), kFormat, "zip archive"));
  CHECK(says(refusal(std::string("\x40\0\0\0\0\0\0\0{\"a\": 1}", 16)), kFormat, "safetensors"));
  CHECK(says(refusal("version https://git-lfs.github.com/spec/v1\n"), kFormat, "Git LFS pointer"));
  CHECK(says(refusal("<!doctype html>"), kFormat, "web page"));
  CHECK(says(refusal("just some words\n"), kFormat, "looks like text"));
  CHECK(says(refusal(std::string(300, '\0')), kFormat, "found 00 00 00 00"));
  CHECK(says(refusal(head(0, 0, 1).all), kUnsupported, "version 1, expected 2 or 3"));
  CHECK(says(refusal(head(0, 0, 4).all), kUnsupported, "version 4, expected 2 or 3"));
  CHECK(says(refusal(head(0, 0, 0x03000000).all), kUnsupported, "big-endian"));
  CHECK_EQUAL(refusal(head(0, 0).all), "");
}

TEST("gguf: counts that the file cannot hold allocate nothing") {
  for (const uint64_t count : {uint64_t(1000), uint64_t(1) << 40, UINT64_MAX / 2, UINT64_MAX}) {
    CHECK(says(refusal(head(count, 0).all), kFormat, "the number of tensors"));
    CHECK(says(refusal(head(0, count).all), kFormat, "the number of keys"));
    CHECK(says(refusal(head(0, 1).number(count).number(0).number(0).all), kFormat, "a key's name"));
    CHECK(says(refusal(head(0, 1).key("k", 8).number(count).all), kFormat, "a string"));
    for (const uint32_t type : {0u, 6u, 7u, 8u, 10u}) {
      const std::string found = refusal(head(0, 1).key("k", 9).number(type).number(count).number(0).all);
      CHECK(says(found, kFormat, "an array's length"));
    }
  }
}

TEST("gguf: a large file cannot ask for many times its size") {
  // A hole of 300 MiB reads as an array of that many u8, held as 64-bit integers: 2.3 GiB.
  const std::string path =
      folder().file("hole.gguf", head(0, 1).key("k", 9).number(uint32_t(0)).number(uint64_t(300) << 20).all);
  std::filesystem::resize_file(path, uint64_t(400) << 20);
  CHECK_ERROR(code::file_format, "more than 1 GiB of memory", GgufFile{path});
}

TEST("gguf: wrong keys") {
  CHECK(says(refusal(head(0, 1).key("k", 13).number(0).all), kFormat, "\"k\" at byte 33 has type 13"));
  CHECK(says(refusal(head(0, 1).key("k", 7).number(uint8_t(2)).all), kFormat, "expected 0 or 1, found 2"));
  CHECK(
      says(refusal(head(0, 1).key("k", 9).number(uint32_t(99)).number(uint64_t(1)).number(0).all), kFormat, "type 99"));
  CHECK(says(refusal(head(0, 1).key("k", 9).number(uint32_t(9)).number(uint64_t(1)).number(0).all), kUnsupported,
             "array of arrays"));
  CHECK(says(refusal(head(0, 2).key("k", 0).number('a').key("k", 0).number('b').all), kFormat, "\"k\" twice"));
  for (const uint32_t alignment : {0u, 1u, 4u, 24u}) {
    CHECK(
        says(refusal(head(0, 1).key("general.alignment", 4).number(alignment).all), kFormat, "a power of two from 8"));
  }
  CHECK(
      says(refusal(head(0, 1).key("general.alignment", 8).text("32").all), kFormat, "is string, expected an unsigned"));
}

TEST("gguf: wrong tensors") {
  const auto with = [&](const std::string& name, std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    Bytes bytes = head(1, 0).tensor(name, std::move(shape), type, offset).pad();
    bytes.all.resize(bytes.all.size() + 4096);
    return refusal(bytes.all);
  };
  const uint64_t large = uint64_t(1) << 62;
  CHECK_EQUAL(with("w", {256, 2, 1, 1}, 12, 0), "");
  CHECK(says(with("", {4}, 0, 0), kFormat, "without a name"));
  CHECK(says(with("w", {}, 0, 0), kFormat, "0 dimensions"));
  CHECK(says(with("w", {1, 1, 1, 1, 1}, 0, 0), kFormat, "5 dimensions"));
  CHECK(says(with("w", {4, 0}, 0, 0), kFormat, "impossible shape 4 x 0"));
  CHECK(says(with("w", {large, 8}, 0, 0), kFormat, "impossible shape"));
  CHECK(says(with("w", {UINT64_MAX, UINT64_MAX}, 0, 0), kFormat, "impossible shape"));
  CHECK(says(with("w", {large}, 0, 0), kFormat, "impossible shape"));  // in bytes
  CHECK(says(with("w", {4096}, 0, 0), kFormat, "needs 16384 bytes"));
  CHECK(says(with("w", {4}, 0, UINT64_MAX - 31), kFormat, "needs 16 bytes"));
  CHECK(says(with("w", {4}, 0, 8), kFormat, "expected a multiple of 32"));
  CHECK(says(with("w", {48}, 2, 0), kFormat, "rows of 48 values, expected a multiple of 32"));
  CHECK(says(with("w", {128}, 12, 0), kFormat, "a multiple of 256"));
  CHECK(says(with("w", {256}, 20, 0), kUnsupported, "type IQ4_NL (20)"));
  CHECK(says(with("w", {256}, 26, 0), kUnsupported, "type I32 (26)"));
  CHECK(says(with("w", {256}, 4, 0), kFormat, "type 4, which is no type"));
  CHECK(says(with("w", {256}, 77, 0), kFormat, "type 77, which is no type"));
  CHECK(says(with("a\nb" + std::string(200, 'x'), {4}, 77, 0), kFormat, "tensor \"a?bxxx"));

  Bytes twice = head(2, 0).tensor("w", {4}, 0, 0).tensor("w", {4}, 0, 32).pad();
  twice.all.resize(twice.all.size() + 64);
  CHECK(says(refusal(twice.all), kFormat, "second tensor \"w\""));
  Bytes overlapping = head(2, 0).tensor("v", {16}, 0, 0).tensor("w", {4}, 0, 32).pad();
  overlapping.all.resize(overlapping.all.size() + 64);
  CHECK(says(refusal(overlapping.all), kFormat, "\"v\" and \"w\" overlap"));
}

TEST("gguf: a model in several files") {
  const auto part = [](uint16_t number, uint16_t count, const std::string& name, float value) {
    Bytes bytes = head(1, 4);
    bytes.key("split.no", 2).number(number).key("split.count", 2).number(count);
    bytes.key("split.tensors.count", 5).number(int32_t(2)).key("part", 2).number(number);
    return bytes.tensor(name, {1}, 0, 0).pad().number(value).all;
  };
  const std::string first = folder().file("m-00001-of-00002.gguf", part(0, 2, "a", 1));
  CHECK_ERROR(code::file_not_found, "m-00002-of-00002.gguf", GgufFile{first});
  const std::string second = folder().file("m-00002-of-00002.gguf", part(1, 2, "b", 2));
  const GgufFile file(first);
  CHECK_EQUAL(file.tensors().size(), 2u);
  CHECK_EQUAL(file.unsigned_key("part"), 0u);
  float value = 0;
  decode_row(Type::F32, file.tensor("b")->data, &value, 1);
  CHECK_EQUAL(value, 2.f);
  file.release(*file.tensor("b"));

  CHECK_ERROR(code::file_format, "give the path of the first part", GgufFile{second});
  CHECK_ERROR(code::file_format, "a name is expected that ends in",
              GgufFile(folder().file("other.gguf", part(0, 2, "a", 1))));
  folder().file("m-00002-of-00002.gguf", part(1, 2, "a", 2));
  CHECK_ERROR(code::file_format, "second tensor \"a\"", GgufFile{first});
  folder().file("m-00002-of-00002.gguf", part(0, 2, "b", 2));
  CHECK_ERROR(code::file_format, "is not part 2 of 2", GgufFile{first});
  folder().file("m-00001-of-00002.gguf", head(0, 3)
                                             .key("split.no", 2)
                                             .number(uint16_t(0))
                                             .key("split.count", 2)
                                             .number(uint16_t(2))
                                             .key("split.tensors.count", 5)
                                             .number(int32_t(2))
                                             .all);
  folder().file("m-00002-of-00002.gguf", part(1, 2, "b", 2));
  CHECK_ERROR(code::file_format, "split.tensors.count is 2, the parts hold 1", GgufFile{first});
}

TEST("gguf: what is written is read again") {
  const Keys keys = {
      {"general.architecture", {8, 0, std::string("minigpt4")}},
      {"u8", {0, 0, uint64_t(255)}},
      {"i16", {3, 0, int64_t(-32768)}},
      {"f32", {6, 0, double(1e-5f)}},
      {"bool", {7, 0, true}},
      {"f64", {12, 0, 1e-12}},
      {"strings", {9, 8, std::vector<std::string>{"a", "", std::string("\0b", 2)}}},
      {"floats", {9, 6, std::vector<double>{0.5, -1}}},
      {"flags", {9, 7, std::vector<bool>{true, false, true}}},
      {"signed", {9, 5, std::vector<int64_t>{-1, 2147483647}}},
      {"unsigned", {9, 10, std::vector<uint64_t>{UINT64_MAX}}},
  };
  Rng rng(1);
  std::vector<float> values(3 * 512);
  for (float& value : values) value = float(rng.uniform() * 2 - 1);
  std::vector<GgufTensorPlan> plans;
  for (const Type type : {Type::F32, Type::F16, Type::Q4_0, Type::Q6_K}) plans.push_back({name(type), type, {512, 3}});
  plans.push_back({"copied", Type::Q8_0, {32}});
  plans.push_back({"narrow", Type::F16, {5, 1, 1, 1}});

  const std::string path = folder().path("written.gguf");
  std::string q8(34, '\3');
  {
    GgufWriter writer(path, keys, plans, 64);
    for (int i = 0; i < 4; ++i) {
      writer.write(Type::F32, values.data(), 512);
      CHECK_EQUAL(writer.current()->name, plans[size_t(i)].name);
      writer.write(Type::F32, values.data() + 512, 1024);
    }
    writer.write(Type::Q8_0, q8.data(), 32);
    writer.write(Type::F32, values.data(), 5);
    CHECK(writer.current() == nullptr);
    CHECK(!std::filesystem::exists(path));
    writer.finish();
  }
  const GgufFile file(path);
  CHECK_EQUAL(file.version(), 3u);
  CHECK_EQUAL(file.unsigned_key("general.alignment"), 64u);
  for (size_t i = 0; i < keys.size(); ++i) {
    CHECK_EQUAL(file.keys()[i].first, keys[i].first);
    CHECK_EQUAL(file.keys()[i].second.type, keys[i].second.type);
    CHECK_EQUAL(file.keys()[i].second.element_type, keys[i].second.element_type);
    CHECK(file.keys()[i].second.value == keys[i].second.value);
  }
  CHECK_EQUAL(file.tensors().size(), plans.size());
  for (size_t i = 0; i < 4; ++i) {
    const GgufTensor& tensor = file.tensors()[i];
    CHECK_EQUAL(tensor.name, plans[i].name);
    CHECK(tensor.shape == plans[i].shape);
    CHECK_EQUAL(tensor.offset % 64, 0u);
    std::vector<std::byte> expected(row_bytes(tensor.type, values.size()));
    encode_row(tensor.type, values.data(), expected.data(), values.size());
    CHECK_EQUAL(tensor.bytes, expected.size());
    CHECK(std::memcmp(tensor.data, expected.data(), expected.size()) == 0);
  }
  CHECK(std::memcmp(file.tensor("copied")->data, q8.data(), q8.size()) == 0);
}

TEST("gguf: encoding in many pieces gives the same bytes") {
  // Large enough for several threads and for two chunks.
  const uint64_t width = 256, rows = 20000;
  std::vector<uint16_t> halves(width * rows);
  Rng rng(5);
  for (uint16_t& half : halves) half = float_to_half(float(rng.uniform() - 0.5));
  const std::string path = folder().path("large.gguf");
  GgufWriter writer(path, {}, {{"w", Type::Q8_0, {width, rows}}});
  writer.write(Type::F16, halves.data(), halves.size());
  writer.finish();
  const GgufFile file(path);
  std::vector<float> row(width);
  std::vector<std::byte> expected(row_bytes(Type::Q8_0, width));
  int wrong = 0;
  for (uint64_t i = 0; i < rows; ++i) {
    decode_row(Type::F16, &halves[i * width], row.data(), width);
    encode_row(Type::Q8_0, row.data(), expected.data(), width);
    wrong += std::memcmp(file.tensors()[0].data + i * expected.size(), expected.data(), expected.size()) != 0;
  }
  CHECK_EQUAL(wrong, 0);
}

TEST("gguf: wrong use of the writer") {
  const std::string path = folder().path("refused.gguf");
  const auto plan = [&](std::vector<GgufTensorPlan> plans) { GgufWriter(path, {}, std::move(plans)); };
  CHECK_ERROR(code::argument, "planned twice", plan({{"w", Type::F32, {1}}, {"w", Type::F32, {1}}}));
  CHECK_ERROR(code::argument, "no multiple of 32", plan({{"w", Type::Q4_0, {33}}}));
  CHECK_ERROR(code::argument, "0 dimensions", plan({{"w", Type::F32, {}}}));
  CHECK_ERROR(code::argument, "a size of 0", plan({{"w", Type::F32, {3, 0}}}));
  CHECK_ERROR(code::argument, "given twice",
              GgufWriter(path, {{"k", {0, 0, uint64_t(1)}}, {"k", {0, 0, uint64_t(1)}}}, {}));
  CHECK_ERROR(code::argument, "256 does not fit", GgufWriter(path, {{"k", {0, 0, uint64_t(256)}}}, {}));
  CHECK_ERROR(code::argument, "-129 does not fit", GgufWriter(path, {{"k", {1, 0, int64_t(-129)}}}, {}));
  CHECK_ERROR(code::argument, "another kind", GgufWriter(path, {{"k", {8, 0, uint64_t(1)}}}, {}));
  CHECK_ERROR(code::argument, "expected 0 to 12", GgufWriter(path, {{"k", {13, 0, uint64_t(1)}}}, {}));
  CHECK_ERROR(code::argument, "power of two", GgufWriter(path, {}, {}, 20));
  CHECK_ERROR(code::file_read, "cannot create", GgufWriter(folder().path("no/such.gguf"), {}, {}));

  const std::vector<float> values(64);
  GgufWriter writer(path, {}, {{"a", Type::Q4_0, {32, 2}}, {"b", Type::F16, {4}}});
  CHECK_ERROR(code::argument, "whole rows of 32 values, found 16", writer.write(Type::F32, values.data(), 16));
  CHECK_ERROR(code::argument, "takes 64 values, 0 are written, found 96", writer.write(Type::F32, values.data(), 96));
  CHECK_ERROR(code::argument, "planned as Q4_0, found Q8_0", writer.write(Type::Q8_0, values.data(), 32));
  const std::vector<float> bad(32, NAN);
  CHECK_ERROR(code::argument, "tensor \"a\": value 0 of a row is nan", writer.write(Type::F32, bad.data(), 32));
  writer.write(Type::F32, values.data(), 32);
  CHECK_ERROR(code::argument, "tensor \"a\" has 32 of 64 values", writer.finish());
  writer.write(Type::F32, values.data(), 32);
  writer.write(Type::F32, values.data(), 4);
  CHECK_ERROR(code::argument, "all 2 planned tensors are written", writer.write(Type::F32, values.data(), 4));
  writer.finish();
  CHECK_ERROR(code::argument, "finished", writer.finish());
  CHECK_ERROR(code::argument, "finished", writer.write(Type::F32, values.data(), 4));

  // A plan for Q3_K may be filled with Q3_K blocks only.
  GgufWriter copy(path, {}, {{"a", Type::Q3_K, {256}}});
  const std::vector<float> row(256);
  CHECK_ERROR(code::unsupported, "cannot write Q3_K", copy.write(Type::F32, row.data(), 256));
}

TEST("gguf: an unfinished file leaves nothing behind, and the old one stays") {
  const check::TemporaryFolder own;
  const std::string path = own.file("model.gguf", "old");
  {
    GgufWriter writer(path, {}, {{"a", Type::F32, {4}}});
    CHECK(std::filesystem::exists(path + ".part-" + std::to_string(getpid())));
  }
  CHECK_EQUAL(own.bytes("model.gguf"), "old");
  CHECK_EQUAL(std::distance(std::filesystem::directory_iterator(std::filesystem::path(path).parent_path()), {}), 1);
}

TEST("gguf: a file truncated while open") {
  const check::TemporaryFolder own;
  const std::string path = own.path("model.gguf");
  {
    GgufWriter writer(path, {}, {{"a", Type::F32, {4096}}});
    const std::vector<float> values(4096, 1.f);
    writer.write(Type::F32, values.data(), values.size());
    writer.finish();
  }
  const GgufFile file(path);
  std::filesystem::resize_file(path, 4096);
  std::vector<float> values(4096);
  decode_row(Type::F32, file.tensors()[0].data, values.data(), values.size());
  CHECK_EQUAL(values.back(), 0.f);
  CHECK_ERROR(code::file_changed, "model.gguf", file.check_unchanged());
}
