// Tells a GGUF file from what people give by mistake, so that the message can say what the file is.
#include "core/gguf_magic.h"

#include <algorithm>
#include <cctype>
#include <iomanip>

namespace minigpt4 {

namespace {

/// What the file looks like, or an empty string.
std::string looks_like(std::string_view start) {
  const auto begins = [&](std::string_view with) { return start.substr(0, with.size()) == with; };
  if (begins("PK\x03\x04")) return "a zip archive, such as a PyTorch checkpoint (.pth, .bin)";
  if (begins("\x80\x02")) return "a Python pickle, such as an old PyTorch checkpoint";
  if (begins("\x1f\x8b")) return "a gzip archive";
  if (begins("\x89PNG") || begins("\xff\xd8\xff")) return "a picture";
  if (start.size() > 262 && start.substr(257, 5) == "ustar") return "a tar archive";
  if (start.size() > 9 && start[8] == '{' && start.substr(4, 4) == std::string_view("\0\0\0\0", 4))
    return "a safetensors file";
  if (begins("version https://git-lfs")) return "a Git LFS pointer: the real file was not downloaded";
  if (begins("<")) return "a web page: perhaps a failed download";
  if (begins("{")) return "JSON";
  const std::string_view head = start.substr(0, 64);
  const bool text =
      std::all_of(head.begin(), head.end(), [](unsigned char c) { return std::isprint(c) || std::isspace(c); });
  return text && !head.empty() ? "text" : "";
}

std::string hexadecimal(std::string_view bytes) {
  std::ostringstream text;
  text << std::hex << std::setfill('0');
  for (size_t i = 0; i < bytes.size(); ++i)
    text << (i ? " " : "") << std::setw(2) << int(static_cast<unsigned char>(bytes[i]));
  return text.str();
}

}  // namespace

uint32_t read_gguf_version(const MappedFile& file, GgufCursor& cursor) {
  const std::string_view start(reinterpret_cast<const char*>(file.data()), std::min<size_t>(file.size(), 512));
  const std::string_view magic = start.substr(0, 4);
  if (magic == "tjgg" || magic == "fmgg" || magic == "lmgg" || magic == "algg") {
    const std::string name = magic == "tjgg" ? "GGJT" : magic == "fmgg" ? "GGMF" : magic == "lmgg" ? "GGML" : "GGLA";
    fail(code::unsupported, file.path(), " is a ", name,
         " file, as llama.cpp and minigpt4.cpp wrote them before August 2023; "
         "expected GGUF: convert the original checkpoint, or take a GGUF of the model");
  }
  if (magic != "GGUF") {
    const std::string like = looks_like(start);
    fail(code::file_format, file.path(), " is not a GGUF file: expected the first bytes 47 47 55 46 (GGUF), found ",
         hexadecimal(magic), like.empty() ? "" : ", which looks like ", like);
  }
  cursor.number<uint32_t>("the magic");
  const uint32_t version = cursor.number<uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  if (version == 1) {
    fail(code::unsupported, file.path(),
         " is GGUF version 1, expected 2 or 3: files of that version are from August 2023 "
         "and hold 32-bit counts; take a newer one of the model");
  }
  if ((version & 0xffff) == 0 && version != 0) {
    fail(code::unsupported, file.path(), " is a big-endian GGUF file, expected little-endian");
  }
  fail(code::unsupported, file.path(), " is GGUF version ", version, ", expected 2 or 3");
}

}  // namespace minigpt4
