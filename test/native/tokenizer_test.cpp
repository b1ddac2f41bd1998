// Token ids against SentencePiece (llama-tokenizer, the cut vocabularies of the model fixtures), against those that the
// original's prompts have, and by hand for what neither shows.
#include "text/tokenizer.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include <unistd.h>

#include "core/gguf.h"
#include "json.h"
#include "tokenizer_fixture.h"

using namespace minigpt4;

namespace {

using Ids = std::vector<int32_t>;

/// The 512 first pieces of the full vocabulary: most texts fall to bytes.
std::unique_ptr<Tokenizer> cut_tokenizer() {
  Vocabulary vocabulary = sentencepiece_vocabulary("llama-tokenizer/tokenizer.model");
  vocabulary.pieces.resize(512);
  vocabulary.scores.resize(512);
  vocabulary.kinds.resize(512);
  return make_tokenizer(vocabulary);
}

/// Pieces <unk> <s> </s>, then `normal` with falling scores.
Vocabulary small_vocabulary(const std::vector<std::string>& normal) {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "<s>", "</s>"};
  vocabulary.kinds = {PieceKind::unknown, PieceKind::control, PieceKind::control};
  vocabulary.scores = {0, 0, 0};
  for (const std::string& piece : normal) {
    vocabulary.scores.push_back(-float(vocabulary.pieces.size()));
    vocabulary.pieces.push_back(piece);
    vocabulary.kinds.push_back(PieceKind::normal);
  }
  return vocabulary;
}

std::string pieces_of(const Tokenizer& tokenizer, const std::string& text) {
  std::string joined;
  for (const int32_t id : tokenizer.encode(text)) {
    if (!joined.empty()) joined += '|';
    joined += tokenizer.vocabulary().pieces[size_t(id)];
  }
  return joined;
}

}  // namespace

TEST("tokenizer: all of the Llama fixture, ids and text") {
  const Json cases = JsonReader::read_file(check::fixture("llama-tokenizer/expected.json"));
  CHECK_EQUAL(cases.items.size(), size_t(207));
  for (const Json& each : cases.items) {
    const Ids ids = llama_tokenizer().encode(each["text"].text);
    CHECK_EQUAL(listed(ids), listed(each["ids"].integers()));
    CHECK_EQUAL(llama_tokenizer().decode(ids), each["decoded"].text);
  }
}

TEST("tokenizer: a cut vocabulary falls to bytes") {
  const std::unique_ptr<Tokenizer> tokenizer = cut_tokenizer();
  // U+2581 itself is not among the 512 pieces
  CHECK_EQUAL(listed(tokenizer->encode("x<s>y</s>")), "229 153 132 123 63 118 65 124 63 50 118 65");
  CHECK_EQUAL(listed(tokenizer->encode("###")), "444 38");
  CHECK_EQUAL(listed(tokenizer->encode("  a")), "259 263");
  CHECK_EQUAL(listed(tokenizer->encode("the sky \xF0\x9F\xA6\x99 too")),
              "278 269 110 124 229 153 132 243 162 169 156 304 114");
  const Json expected = JsonReader::read_file(check::fixture("tiny-llama2/expected.json"));
  for (const Json& each : expected["tokenizer"].items) {
    CHECK_EQUAL(listed(tokenizer->encode(each["text"].text)), listed(each["ids"].integers()));
  }
  const Vocabulary file = sentencepiece_vocabulary("tiny-llama2/llama2/tokenizer.model");
  CHECK(file.pieces == tokenizer->vocabulary().pieces && file.scores == tokenizer->vocabulary().scores);
}

TEST("tokenizer: the original's prompt segments") {
  const std::string system =
      "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
      "Please answer my questions.";
  const std::string system_ids =
      "25538 278 1494 1967 29901 529 25518 29958 2940 3916 829 25518 15513 887 674 367 2221 304 1074 278 1967 2748 306 "
      "3867 372 304 366 29889 3529 1234 590 5155 29889";
  const std::string describe = "1533 25518 29958 20355 915 445 1967 297 9493 29889";
  const Tokenizer& llama = llama_tokenizer();
  CHECK_EQUAL(listed(llama.encode(system + "###Human: <Img>")),
              system_ids + " 2277 29937 29950 7889 29901 529 25518 29958");
  CHECK_EQUAL(listed(llama.encode("</Img> Describe this image in detail.###Assistant: ")),
              describe + " 2277 29937 7900 22137 29901 29871");
  CHECK_EQUAL(listed(llama.encode_with_specials(system + "<s>[INST] <Img>")),
              system_ids + " 1 518 25580 29962 529 25518 29958");
  CHECK_EQUAL(listed(llama.encode_with_specials("</Img> Describe this image in detail. [/INST] ")),
              describe + " 518 29914 25580 29962 29871");
  CHECK_EQUAL(listed(llama.encode("###Human: <Img>")), "835 29950 7889 29901 529 25518 29958");
  CHECK_EQUAL(listed(llama.encode("The image shows a dog.###")), "450 1967 3697 263 11203 29889 2277 29937");
  CHECK_EQUAL(listed(llama.encode("a dog on the grass\n")), "263 11203 373 278 17455 13");
}

TEST("tokenizer: control pieces only where they are asked for") {
  const Tokenizer& llama = llama_tokenizer();
  CHECK_EQUAL(listed(llama.encode("x<s>y</s>")), "921 29966 29879 29958 29891 829 29879 29958");
  CHECK_EQUAL(listed(llama.encode_with_specials("x<s>y</s>")), "921 1 343 2");  // y with its own dummy space
  CHECK_EQUAL(listed(llama.encode_with_specials("<s><s></s><unk>")), "1 1 2 0");
  CHECK_EQUAL(listed(llama.encode_with_specials("<s> y")), "1 259 29891");
  CHECK_EQUAL(listed(llama.encode_with_specials("</s")), listed(llama.encode("</s")));
  CHECK_EQUAL(listed(llama.encode_with_specials("")), "");
  CHECK_EQUAL(llama.id_of("</s>"), 2);
  CHECK_EQUAL(llama.id_of("no such piece"), -1);
}

TEST("tokenizer: invalid UTF-8 becomes byte tokens") {
  CHECK_EQUAL(listed(llama_tokenizer().encode("a\xFF\xE2\x82")), "263 258 229 133");
  CHECK_EQUAL(listed(llama_tokenizer().encode(std::string("\0", 1))), "29871 3");
}

TEST("tokenizer: a megabyte takes n log n") {
  const auto start = std::chrono::steady_clock::now();
  CHECK_EQUAL(llama_tokenizer().encode(std::string(1 << 20, 'a')).size() > 1000, true);
  CHECK_EQUAL(llama_tokenizer().encode(std::string(1 << 20, ' ')).size() > 1000, true);
  const auto bytes = make_tokenizer(byte_level_vocabulary({"a a", "aa aa"}, "gpt2"));
  CHECK_EQUAL(bytes->encode(std::string(1 << 20, 'a')).size(), size_t(1 << 18));
  // quadratic time would be hours; the sanitizers' build on a busy machine needs seconds
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
}

TEST("tokenizer: spaces as the vocabulary wants them") {
  Vocabulary vocabulary = small_vocabulary({"a", "b", "\xE2\x96\x81"});
  CHECK_EQUAL(listed(make_tokenizer(vocabulary)->encode("a  b ")), "5 3 5 5 4 5");
  vocabulary.add_space_prefix = false;
  CHECK_EQUAL(listed(make_tokenizer(vocabulary)->encode("a  b ")), "3 5 5 4 5");
  CHECK_EQUAL(make_tokenizer(vocabulary)->decode({5, 3}), " a");  // no prefix was added, none is dropped
  vocabulary.add_space_prefix = vocabulary.remove_extra_whitespaces = true;
  CHECK_EQUAL(listed(make_tokenizer(vocabulary)->encode("  a  b ")), "5 3 5 4");
  CHECK_EQUAL(listed(make_tokenizer(vocabulary)->encode("   ")), "");
}

TEST("tokenizer: scores decide, ties go left") {
  Vocabulary vocabulary = small_vocabulary({"a", "aa", "ab", "b", "aab"});
  vocabulary.add_space_prefix = false;
  const auto tokenizer = make_tokenizer(vocabulary);
  CHECK_EQUAL(pieces_of(*tokenizer, "aab"), "aab");     // aa first, then aab
  CHECK_EQUAL(pieces_of(*tokenizer, "aaab"), "aa|ab");  // the left aa
  CHECK_EQUAL(pieces_of(*tokenizer, "abab"), "ab|ab");
  CHECK_EQUAL(listed(tokenizer->encode("xya")), "0 3");  // no byte pieces: one unknown for a run
}

TEST("tokenizer: user-defined pieces stand whole, unused ones fall apart") {
  Vocabulary vocabulary = small_vocabulary({"a", "b", "ab", "aba", "abab", "<x>", "<x>b"});
  vocabulary.add_space_prefix = false;
  vocabulary.kinds[5] = PieceKind::unused;        // ab
  vocabulary.kinds[7] = PieceKind::unused;        // abab
  vocabulary.kinds[8] = PieceKind::user_defined;  // <x>
  const auto tokenizer = make_tokenizer(vocabulary);
  CHECK_EQUAL(pieces_of(*tokenizer, "ab"), "a|b");
  CHECK_EQUAL(pieces_of(*tokenizer, "aba"), "aba");        // merged through ab
  CHECK_EQUAL(pieces_of(*tokenizer, "abab"), "a|b|a|b");   // abab is merged, but falls to ab and ab, and those likewise
  CHECK_EQUAL(pieces_of(*tokenizer, "a<x>b"), "a|<x>|b");  // never <x>b
}

TEST("tokenizer: byte-level BPE") {
  const std::string space = "\xC4\xA0";  // the letter of a space
  const std::vector<std::string> merges = {"l o", space + " w", "lo w", "w o", "o " + space};
  const auto gpt2 = make_tokenizer(byte_level_vocabulary(merges, "gpt2"));
  CHECK_EQUAL(pieces_of(*gpt2, "low wo"), "low|" + space + "w|o");  // the pair of the lower rank first
  CHECK_EQUAL(pieces_of(*gpt2, "o o"), "o|" + space + "|o");        // never across words
  CHECK_EQUAL(pieces_of(*gpt2, "lolow"), "lo|low");
  CHECK_EQUAL(pieces_of(*gpt2, "w<tool>w"), "w|<tool>|w");
  CHECK_EQUAL(listed(gpt2->encode("\xFF\x00z")), listed({2 + 0xFF}));  // a C string ends at the zero
  CHECK_EQUAL(listed(gpt2->encode_with_specials("lo<|end|>w")), listed({258, 0, 2 + 'w'}));
  const std::string text = "low \xE6\x97\xA5\xE6\x9C\xAC <tool> 12\n\t\xF0\x9F\xA6\x99 wow";
  CHECK_EQUAL(gpt2->decode(gpt2->encode(text)), text);
  // Llama 3 takes a word that is in the vocabulary whole, even where the merges do not lead to it
  Vocabulary vocabulary = byte_level_vocabulary(merges, "llama-bpe");
  vocabulary.pieces.push_back("wol");
  vocabulary.kinds.push_back(PieceKind::normal);
  CHECK_EQUAL(pieces_of(*make_tokenizer(vocabulary), "wol"), "wol");
  vocabulary.pre = "gpt2";
  CHECK_EQUAL(pieces_of(*make_tokenizer(vocabulary), "wol"), "wo|l");
  // a byte that the vocabulary cannot write is left out
  vocabulary.pieces[2 + 'q'] = "other";
  CHECK_EQUAL(pieces_of(*make_tokenizer(vocabulary), "qlo"), "lo");
}

TEST("tokenizer: vocabularies that cannot be") {
  Vocabulary vocabulary = small_vocabulary({"a"});
  vocabulary.scores.pop_back();
  CHECK_ERROR(code::file_format, "4 pieces but 3 scores", make_tokenizer(vocabulary));
  vocabulary = small_vocabulary({"a"});
  vocabulary.scores[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_ERROR(code::file_format, "score of piece 3", make_tokenizer(vocabulary));
  vocabulary = small_vocabulary({"<0xG0>"});
  vocabulary.kinds[3] = PieceKind::byte;
  CHECK_ERROR(code::file_format, "expected <0x00>", make_tokenizer(vocabulary));
  vocabulary = small_vocabulary({});
  vocabulary.eos = 3;
  CHECK_ERROR(code::file_format, "eos id is 3", make_tokenizer(vocabulary));
  CHECK_ERROR(code::file_format, "0 pieces", make_tokenizer(Vocabulary{}));
  CHECK_ERROR(code::unsupported, "\"klingon\"", make_tokenizer(byte_level_vocabulary({}, "klingon")));
  Vocabulary merging = byte_level_vocabulary({"a b"}, "gpt2");
  merging.merges.push_back("b c");
  CHECK_ERROR(code::file_format, "merge 1", make_tokenizer(merging));
  merging.merges[1] = "bc";
  CHECK_ERROR(code::file_format, "two pieces", make_tokenizer(merging));
  CHECK_ERROR(code::argument, "token id 32000", llama_tokenizer().bytes_of(32000));
  CHECK_ERROR(code::argument, "token id -1", llama_tokenizer().decode({1, -1}));
}

TEST("tokenizer: a tokenizer.model that is damaged or of another kind") {
  const auto parse = [](const std::string& bytes) { return vocabulary_from_sentencepiece(bytes.data(), bytes.size()); };
  const auto piece = [](const std::string& text) {
    return std::string{0x0A, char(text.size() + 2), 0x0A, char(text.size())} + text;
  };
  const std::string bpe = std::string("\x12\x02\x18\x02", 4), healthy = piece("a") + bpe;
  CHECK(parse(healthy).pieces == std::vector<std::string>{"a"});
  CHECK_EQUAL(parse(healthy).bos, -1);
  CHECK(parse(healthy).remove_extra_whitespaces);  // the format's default
  CHECK_ERROR(code::file_format, "no piece", parse(""));
  CHECK_ERROR(code::file_format, "no piece", parse(bpe));
  CHECK_ERROR(code::unsupported, "model type 1", parse(piece("a")));
  CHECK_ERROR(code::file_format, "twice", parse(piece("a") + piece("a") + bpe));
  CHECK_ERROR(code::file_format, "is empty", parse(piece("") + bpe));
  CHECK_ERROR(code::file_format, "has type 7", parse(std::string("\x0A\x05\x0A\x01", 4) + "a\x18\x07" + bpe));
  CHECK_ERROR(code::file_format, "only 1 are left",
              parse("\x0A\x05"
                    "a"));
  CHECK_ERROR(code::file_format, "ends within a number", parse("\x0A\xFF"));
  CHECK_ERROR(code::file_format, "more than 10 bytes", parse(std::string(11, '\xFF')));
  CHECK_ERROR(code::file_format, "wire type 3", parse("\x0B"));
  CHECK_ERROR(code::file_format, "field number 0", parse(std::string("\x02\x01\x00", 3)));
  CHECK_ERROR(code::file_format, "wire type 0, expected 2", parse("\x08\x01"));
  CHECK_ERROR(code::unsupported, "by a table", parse(healthy + "\x1A\x03\x12\x01x"));
  CHECK_ERROR(code::unsupported, "suffixes", parse(healthy + std::string("\x1A\x02\x28\x00", 4)));
  const std::string full = read_bytes(check::fixture("llama-tokenizer/tokenizer.model"));
  CHECK_ERROR(code::file_format, "bytes", parse(full.substr(0, full.size() / 2 + 1)));
}

TEST("tokenizer: from GGUF keys") {
  using Keys = std::vector<std::pair<std::string, GgufValue>>;
  const std::string name = "minigpt4-vocabulary-" + std::to_string(getpid()) + ".gguf";
  const std::string path = (std::filesystem::temp_directory_path() / name).string();
  const auto read = [&](const Keys& keys) {
    GgufWriter(path, keys, {}).finish();
    return vocabulary_from_gguf(GgufFile(path));
  };
  const auto text = [](const std::string& value) { return GgufValue{8, 0, value}; };
  const auto number = [](uint64_t value) { return GgufValue{4, 0, value}; };
  Keys keys = {
      {"general.architecture", text("llama")},
      {"tokenizer.ggml.model", text("llama")},
      {"tokenizer.ggml.tokens", {9, 8, std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x41>", "\xE2\x96\x81"}}},
      {"tokenizer.ggml.scores", {9, 6, std::vector<double>{0, 0, 0, 0, -1}}},
      {"tokenizer.ggml.token_type", {9, 5, std::vector<int64_t>{2, 3, 3, 6, 1}}},
  };
  const Vocabulary plain = read(keys);
  CHECK(plain.model == Vocabulary::Model::sentencepiece && plain.add_bos && plain.add_space_prefix && !plain.add_eos);
  CHECK_EQUAL(plain.bos, 1);
  CHECK_EQUAL(plain.eos, 2);
  CHECK_EQUAL(plain.padding, -1);
  CHECK_EQUAL(listed(make_tokenizer(plain)->encode("A")), "4 3");
  keys.push_back({"tokenizer.ggml.padding_token_id", number(0xFFFFFFFF)});  // how files write "none"
  CHECK_EQUAL(read(keys).padding, -1);
  keys.push_back({"tokenizer.ggml.eos_token_id", number(5)});
  CHECK_ERROR(code::file_format, "eos_token_id is 5", read(keys));
  keys.pop_back();
  keys[4].second.value = std::vector<int64_t>{2, 3, 3, 9, 1};
  CHECK_ERROR(code::file_format, "type 9", read(keys));
  keys[4].second.value = std::vector<int64_t>{2, 3, 3};
  CHECK_ERROR(code::file_format, "5 pieces but 3 kinds", read(keys));
  keys[1].second = text("bert");
  CHECK_ERROR(code::unsupported, "\"bert\"", read(keys));
  keys.erase(keys.begin() + 1);
  CHECK_ERROR(code::file_format, "tokenizer.ggml.model", read(keys));

  Vocabulary made = byte_level_vocabulary({"l o"}, "smollm");
  const Keys byte_level = {
      {"general.architecture", text("llama")},        {"tokenizer.ggml.model", text("gpt2")},
      {"tokenizer.ggml.pre", text("smollm")},         {"tokenizer.ggml.tokens", {9, 8, made.pieces}},
      {"tokenizer.ggml.merges", {9, 8, made.merges}}, {"tokenizer.ggml.eos_token_id", number(0)},
  };
  const Vocabulary found = read(byte_level);
  CHECK(found.model == Vocabulary::Model::byte_level && !found.add_bos && !found.add_space_prefix);
  CHECK_EQUAL(found.bos, -1);
  CHECK_EQUAL(found.eos, 0);
  CHECK_EQUAL(listed(make_tokenizer(found)->encode("lo")), "258");
  std::filesystem::remove(path);
}
