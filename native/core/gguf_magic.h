// The first bytes of a GGUF file, and what else a file may be that is given as one.
#pragma once

#include "core/gguf_cursor.h"

namespace minigpt4 {

/// Reads magic and version at the cursor. Error ERR_FILE_FORMAT with what the file looks like, or ERR_UNSUPPORTED for
/// older and foreign forms of the format (GGJT and its forerunners, version 1, big-endian).
uint32_t read_gguf_version(const MappedFile& file, GgufCursor& cursor);

}  // namespace minigpt4
