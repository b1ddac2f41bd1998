// Streamed text: whole characters only, and together what decode() gives.
#include "text/detokenizer.h"

#include "core/rng.h"
#include "json.h"
#include "tokenizer_fixture.h"

using namespace minigpt4;

namespace {

constexpr const char* replacement = "\xEF\xBF\xBD";
constexpr int32_t first_byte = 3;  // id of <0x00>

bool valid(const std::string& text) { return to_valid_utf8(text) == text; }

/// All pieces of one stream; fails the test if one of them cuts a character.
std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamingDetokenizer detokenizer(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    CHECK(valid(piece));
    text += piece;
  }
  return text + detokenizer.finish();
}

}  // namespace

TEST("detokenizer: streaming equals decode() on all texts") {
  for (const Json& each : JsonReader::read_file(check::fixture("llama-tokenizer/expected.json")).items) {
    CHECK_EQUAL(streamed(llama_tokenizer(), each["ids"].integers()), each["decoded"].text);
  }
  const auto bytes = make_tokenizer(byte_level_vocabulary({"a a"}, "smollm"));
  for (const Json& each : JsonReader::read_file(check::fixture("llama-tokenizer/expected.json")).items) {
    CHECK_EQUAL(streamed(*bytes, bytes->encode(each["text"].text)), each["text"].text);
  }
}

TEST("detokenizer: any ids give valid text, the same as decode()") {
  Rng random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 40; ++i) {
      // half of them bytes, so that broken characters come in every way
      ids.push_back(int32_t(random.next() % 2 ? random.next() % 32000 : first_byte + random.next() % 256));
    }
    const std::string text = streamed(llama_tokenizer(), ids);
    CHECK(valid(text));
    CHECK_EQUAL(text, llama_tokenizer().decode(ids));
  }
}

TEST("detokenizer: a character comes when its last byte does") {
  StreamingDetokenizer detokenizer(llama_tokenizer());
  CHECK_EQUAL(detokenizer.push(15043), "Hello");  // the dummy prefix's space is dropped
  CHECK_EQUAL(detokenizer.push(15043), " Hello");
  CHECK_EQUAL(detokenizer.push(first_byte + 0xF0), "");
  CHECK_EQUAL(detokenizer.push(first_byte + 0x9F), "");
  CHECK_EQUAL(detokenizer.push(first_byte + 0xA6), "");
  CHECK_EQUAL(detokenizer.push(first_byte + 0x99), "\xF0\x9F\xA6\x99");
  CHECK_EQUAL(detokenizer.push(first_byte + 0xE6), "");
  CHECK_EQUAL(detokenizer.push(15043), std::string(replacement) + " Hello");  // can no longer become a character
  CHECK_EQUAL(detokenizer.push(first_byte + 0xFF), replacement);
  CHECK_EQUAL(detokenizer.push(first_byte + 0xE6), "");
  CHECK_EQUAL(detokenizer.finish(), replacement);
  CHECK_EQUAL(detokenizer.finish(), "");
}

TEST("detokenizer: which leading space is dropped") {
  const Tokenizer& llama = llama_tokenizer();
  CHECK_EQUAL(llama.decode({1, 15043, 2, 0}), "Hello");  // control pieces and the unknown one give nothing
  CHECK_EQUAL(llama.decode({29871, 15043}), " Hello");
  CHECK_EQUAL(llama.decode({first_byte + ' ', 15043}), "  Hello");  // a byte's space is no dummy prefix
  StreamingDetokenizer later(llama, false);
  CHECK_EQUAL(later.push(15043), " Hello");
}

TEST("detokenizer: maximal invalid sequences") {
  const std::string r = replacement;
  CHECK_EQUAL(to_valid_utf8("a\xC3(b"), "a" + r + "(b");
  CHECK_EQUAL(to_valid_utf8("\xF0\x90\x80z"), r + "z");                   // a truncated character is one
  CHECK_EQUAL(to_valid_utf8("\xC0\xAF\xE0\x80\xBF"), r + r + r + r + r);  // overlong: every byte
  CHECK_EQUAL(to_valid_utf8("\xED\xA0\x80"), r + r + r);                  // a surrogate
  CHECK_EQUAL(to_valid_utf8("\xF4\x90\x80\x80"), r + r + r + r);          // beyond U+10FFFF
  CHECK_EQUAL(to_valid_utf8("\xE2\x82"), r);
  std::string tail = "old";
  CHECK_EQUAL(to_valid_utf8("ok\xE2\x82", &tail), "ok");
  CHECK_EQUAL(tail, "\xE2\x82");
  CHECK_EQUAL(to_valid_utf8("ok\xFF", &tail), "ok" + r);
  CHECK_EQUAL(tail, "");
}
