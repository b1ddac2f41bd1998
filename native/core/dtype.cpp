// The table of number types: names, block sizes, and the names of the types that are not read.
#include "core/dtype.h"

#include <array>
#include <cctype>

#include "core/error.h"

namespace minigpt4 {

namespace {

constexpr TypeInfo kTypes[] = {
    {Type::F32, "F32", 1, 4},       {Type::F16, "F16", 1, 2},       {Type::Q4_0, "Q4_0", 32, 18},
    {Type::Q4_1, "Q4_1", 32, 20},   {Type::Q5_0, "Q5_0", 32, 22},   {Type::Q5_1, "Q5_1", 32, 24},
    {Type::Q8_0, "Q8_0", 32, 34},   {Type::Q2_K, "Q2_K", 256, 84},  {Type::Q3_K, "Q3_K", 256, 110},
    {Type::Q4_K, "Q4_K", 256, 144}, {Type::Q5_K, "Q5_K", 256, 176}, {Type::Q6_K, "Q6_K", 256, 210},
    {Type::BF16, "BF16", 1, 2},
};

// GGUF's numbering; null where a number was withdrawn.
constexpr const char* kNames[] = {
    "F32",   "F16",    "Q4_0",  "Q4_1",  nullptr, nullptr,   "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
    "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",   "I64",     "F64",    "IQ1_M",   "BF16",  nullptr,  nullptr,
    nullptr, "TQ1_0",  "TQ2_0", nullptr, nullptr, nullptr,   "MXFP4",  "NVFP4",   "Q1_0",  "Q2_0",
};

constexpr size_t kNumbers = sizeof kNames / sizeof *kNames;

// Where in kTypes a number is, or -1.
constexpr std::array<int8_t, kNumbers> kPlaces = [] {
  std::array<int8_t, kNumbers> places{};
  places.fill(-1);
  for (size_t i = 0; i < sizeof kTypes / sizeof *kTypes; ++i) places[size_t(kTypes[i].type)] = int8_t(i);
  return places;
}();

}  // namespace

const TypeInfo* find_type(uint32_t gguf_number) noexcept {
  if (gguf_number >= kNumbers || kPlaces[gguf_number] < 0) return nullptr;
  return &kTypes[kPlaces[gguf_number]];
}

const char* gguf_type_name(uint32_t gguf_number) noexcept {
  return gguf_number < kNumbers ? kNames[gguf_number] : nullptr;
}

std::optional<Type> type_by_name(std::string_view name) noexcept {
  for (const TypeInfo& candidate : kTypes) {
    const std::string_view known = candidate.name;
    bool same = name.size() == known.size();
    for (size_t i = 0; same && i < name.size(); ++i) {
      same = std::toupper(static_cast<unsigned char>(name[i])) == known[i];
    }
    if (same) return candidate.type;
  }
  return std::nullopt;
}

const TypeInfo& info(Type type) noexcept {
  // A Type is only ever made from find_type's or type_by_name's answer, so the number is in the table.
  return kTypes[kPlaces[uint32_t(type)]];
}

size_t row_bytes(Type type, uint64_t values) {
  const TypeInfo& of = info(type);
  if (values % of.block_values != 0) {
    fail(code::shape, "a row of ", values, " values cannot be ", of.name, ": its blocks hold ", of.block_values,
         " values");
  }
  const uint64_t blocks = values / of.block_values;
  if (blocks > SIZE_MAX / of.block_bytes)
    fail(code::shape, "a row of ", values, " values is larger than the memory's addresses");
  return size_t(blocks * of.block_bytes);
}

}  // namespace minigpt4
