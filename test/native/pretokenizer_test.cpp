// Words of byte-level BPE against the published regular expressions, run by Hugging Face's tokenizers.
#include "text/pretokenizer.h"

#include "check.h"

using namespace minigpt4;

namespace {

std::string joined(const char* pre, const std::string& text) {
  std::string words;
  for (const std::string_view word : split_words(find_pretokenizer(pre), text)) {
    if (!words.empty()) words += '|';
    words += word;
  }
  return words;
}

}  // namespace

TEST("pretokenizer: words as the regular expressions cut them") {
  struct Case {
    const char* text;
    const char* words[4];  // gpt2, smollm, llama-bpe, qwen2
  };
  const Case cases[] = {
      {"Hello world", {"Hello| world", "Hello| world", "Hello| world", "Hello| world"}},
      {"  two  spaces ", {" | two| | spaces| ", " | two| | spaces| ", " | two| | spaces| ", " | two| | spaces| "}},
      {"I'll DON'T we've it's'd",
       {"I|'ll| DON|'|T| we|'ve| it|'s|'d", "I|'ll| DON|'|T| we|'ve| it|'s|'d", "I|'ll| DON|'T| we|'ve| it|'s|'d",
        "I|'ll| DON|'T| we|'ve| it|'s|'d"}},
      {"12345 67", {"12345| 67", "1|2|3|4|5| |6|7", "123|45| |67", "1|2|3|4|5| |6|7"}},
      {"foo   123bar", {"foo|  | 123|bar", "foo|   |1|2|3|bar", "foo|  | |123|bar", "foo|  | |1|2|3|bar"}},
      {" \n  x", {" \n | x", " \n | x", " \n| | x", " \n| | x"}},
      {"a\r\n\r\n  b", {"a|\r\n\r\n | b", "a|\r\n\r\n | b", "a|\r\n\r\n| | b", "a|\r\n\r\n| | b"}},
      {"...!! \n\n##", {"...!!| \n|\n|##", "...!!| \n|\n|##", "...!!| \n\n|##", "...!!| \n\n|##"}},
      {"x=1;\n\ty", {"x|=|1|;|\n|\t|y", "x|=|1|;|\n|\t|y", "x|=|1|;\n|\ty", "x|=|1|;\n|\ty"}},
      {"\346\227\245\346\234\254\350\252\236 \343\203\206\343\202\255\343\202\271\343\203\210",
       {"\346\227\245\346\234\254\350\252\236| \343\203\206\343\202\255\343\202\271\343\203\210",
        "\346\227\245\346\234\254\350\252\236| \343\203\206\343\202\255\343\202\271\343\203\210",
        "\346\227\245\346\234\254\350\252\236| \343\203\206\343\202\255\343\202\271\343\203\210",
        "\346\227\245\346\234\254\350\252\236| \343\203\206\343\202\255\343\202\271\343\203\210"}},
      {"\302\275 \331\243\331\244 \342\205\247",
       {"\302\275| \331\243\331\244| \342\205\247", "\302\275| |\331\243|\331\244| |\342\205\247",
        "\302\275| |\331\243\331\244| |\342\205\247", "\302\275| |\331\243|\331\244| |\342\205\247"}},
      {"\303\251\302\240\343\200\200z",
       {"\303\251|\302\240|\343\200\200|z", "\303\251|\302\240|\343\200\200|z", "\303\251|\302\240|\343\200\200z",
        "\303\251|\302\240|\343\200\200z"}},
      {"\360\237\246\231\360\237\246\231 ok",
       {"\360\237\246\231\360\237\246\231| ok", "\360\237\246\231\360\237\246\231| ok",
        "\360\237\246\231\360\237\246\231| ok", "\360\237\246\231\360\237\246\231| ok"}},
      {"_a -b", {"_|a| -|b", "_|a| -|b", "_a| -|b", "_a| -|b"}},
      {"'", {"'", "'", "'", "'"}},
      {"   ", {"   ", "   ", "   ", "   "}},
  };
  const char* const names[4] = {"gpt2", "smollm", "llama-bpe", "qwen2"};
  for (const Case& each : cases) {
    for (size_t i = 0; i < 4; ++i) CHECK_EQUAL(joined(names[i], each.text), each.words[i]);
  }
}

TEST("pretokenizer: invalid UTF-8 counts as symbols, and nothing is lost") {
  CHECK_EQUAL(joined("gpt2", "a\xFF\xE2\x82 b\x80"), "a|\xFF\xE2\x82| b|\x80");
  CHECK_EQUAL(joined("llama-bpe", ""), "");
}

TEST("pretokenizer: names") {
  CHECK_ERROR(code::unsupported, "\"klingon\", expected one of default, gpt2", find_pretokenizer("klingon"));
  CHECK_EQUAL(joined("", "a1"), joined("default", "a1"));
}
