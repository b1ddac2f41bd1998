// Metadata values of GGUF in the file's form.
#pragma once

#include <string>

#include "core/gguf.h"
#include "core/gguf_cursor.h"

namespace minigpt4 {

/// The value of `key` at the cursor: type number, then the value. Errors: ERR_FILE_FORMAT, ERR_UNSUPPORTED (an array of
/// arrays).
GgufValue read_gguf_value(GgufCursor& cursor, const std::string& key);
/// "u32", "array of string": for messages.
std::string gguf_kind_name(const GgufValue& value);
template <class Number>
void append_number(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}
/// A u64 length and the bytes.
inline void append_gguf_string(std::string& bytes, const std::string& text) {
  append_number(bytes, uint64_t(text.size()));
  bytes += text;
}
/// Appends the value's type and the value as read_gguf_value reads them. Error ERR_ARGUMENT if what the value holds is
/// not what its `type` (and `element_type`) says or does not fit it.
void append_gguf_value(std::string& bytes, const std::string& key, const GgufValue& value);

}  // namespace minigpt4
