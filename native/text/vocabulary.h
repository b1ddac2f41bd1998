// Checks of a vocabulary that both of its sources and both tokenizers rely on.
#pragma once

#include <string_view>

#include "text/tokenizer.h"

namespace minigpt4 {

/// ERR_FILE_FORMAT unless there is a piece, scores and kinds have one entry a piece (scores: sentencepiece only),
/// scores are finite, byte pieces name a byte (sentencepiece), and bos, eos, unknown and padding are -1 or ids.
void check_vocabulary(const Vocabulary& vocabulary);
/// The byte that "<0xNN>" names, -1 if it is not of that form.
int byte_of_piece(std::string_view piece) noexcept;

}  // namespace minigpt4
