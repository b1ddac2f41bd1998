// Every byte against Pillow's Image.resize(BICUBIC): hashes of the results of version 12 (9.5 gives the same ones),
// printed by scripts/bicubic-cases.py.
#include "image/bicubic.h"

#include <fstream>
#include <iterator>
#include <limits>

#include "check.h"

using namespace minigpt4;

namespace {

struct Case {
  int width, height, size_x, size_y;
  uint64_t of_noise, of_extremes;
};
constexpr Case cases[] = {
    {1, 1, 224, 224, 0x50bf59c91f118b25, 0xdb9ddc5b5447bf25},
    {1, 37, 224, 224, 0x8e76048a08878da5, 0xd267922071567b45},
    {37, 1, 224, 224, 0x55541ed4503d28a5, 0x73ef8a3826e44365},
    {2, 2, 224, 224, 0xdc218f28bf499077, 0xced8cb9ff5ca4bd0},
    {3, 5, 224, 224, 0x03356bbb6ddbe50a, 0x2b1c95fff54f1be1},
    {224, 224, 224, 224, 0x183923d195fc5ec2, 0x9c2d76815f456916},
    {224, 100, 224, 224, 0x5800b015f474db9b, 0x674b925589ad1c1c},
    {100, 224, 224, 224, 0x1475d42c4c82e8d7, 0x595adaf1a584476e},
    {448, 224, 224, 224, 0x3f93769fe0c36756, 0x3072fb8feb19ba20},
    {224, 448, 224, 224, 0x4fae39b8f20c0183, 0x0cbae00c99dea32e},
    {223, 225, 224, 224, 0xdf53539dc31d91f2, 0xd91e915ef19d6e5e},
    {225, 223, 224, 224, 0xf103ca55afc046df, 0x4df3afcbd53168f1},
    {1600, 1067, 224, 224, 0x74e5363af8d901c4, 0x0b6ba9a7b79ba515},
    {30000, 2, 224, 224, 0xb62fcdc2e858af4d, 0xd08bf6387463e031},
    {2, 30000, 224, 224, 0x5e9b31968f898ace, 0xa1dc64e6a6d94972},
    {640, 480, 448, 448, 0x9709c55cd61db088, 0x103bd97990001181},
    {97, 3, 224, 224, 0xc53be7c1ce5596a5, 0x1865e9dc393e6e1d},
    {640, 100, 224, 224, 0x3133bef98ca2e5b5, 0x922b52894517f45e},
    {100, 640, 224, 224, 0xba6eb53537099c49, 0xcd3277e403242a10},
    {57, 300, 56, 56, 0x39ca0468d452f6c9, 0x64120a1d80958748},
    {7, 9, 1, 1, 0x916ee81964e45aea, 0x4c63a9193ddb4d82},
    {1, 9, 1, 3, 0x04969d96acc4f322, 0xcb73ab34f4672e06},
    {500, 333, 112, 112, 0xb264b1c974a5ec06, 0xa3034f6dd8b023f9},
    {113, 112, 112, 112, 0x79e55c9bfc32ba17, 0xabb115bb0dc890a9},
    {17, 400, 31, 5, 0x2b9fc77ef8ee5700, 0x9ac5bbbc4b5803d8},
    {400, 17, 5, 31, 0xebdcb75cc6cd736e, 0xb572fbf16c4a1488},
    {255, 256, 100, 300, 0x54e7dc94fdacebab, 0x3b25fddb2ffde719},
    {1001, 77, 13, 200, 0x928255951724cfc3, 0x92dc6393dc503711},
    {64, 64, 65, 63, 0x9bbc61892bdc6d5e, 0x15a852e5806c0dbb},
    {450, 449, 448, 448, 0x554882aba54ec72c, 0xb33089e96b2ebdf3},
};

struct Photo {
  const char* name;
  uint64_t hash;
};
// of Pillow's 224 x 224; the fixture tiny-llama2 has the second one's bytes
constexpr Photo photos[] = {
    {"gray", 0x4a39faf9268c5ee5},
    {"scene", 0xd41d07cb568fd076},
    {"small", 0x561236532c44cd15},
};

/// A linear congruential sequence's top bytes, or only 0 and 255.
std::vector<uint8_t> picture(int width, int height, bool extreme) {
  std::vector<uint8_t> bytes(size_t(width) * size_t(height) * 3);
  uint32_t state = uint32_t(width) * 65536 + uint32_t(height);
  for (uint8_t& byte : bytes) {
    state = state * 1664525 + 1013904223;
    const auto top = uint8_t(state >> 24);
    byte = extreme ? (top >= 128 ? 255 : 0) : top;
  }
  return bytes;
}

uint64_t fnv(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001B3;
  return hash;
}

struct Ppm {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

Ppm read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int largest = 0;
  Ppm photo;
  file >> magic >> photo.width >> photo.height >> largest;
  file.get();
  photo.rgb.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  CHECK_EQUAL(magic, "P6");
  CHECK_EQUAL(photo.rgb.size(), size_t(photo.width) * size_t(photo.height) * 3);
  return photo;
}

}  // namespace

TEST("bicubic: made-up pictures of every kind of shape") {
  for (const Case& each : cases) {
    for (const bool extreme : {false, true}) {
      const std::vector<uint8_t> source = picture(each.width, each.height, extreme);
      const auto found = resize_bicubic(source.data(), each.width, each.height, each.size_x, each.size_y);
      if (fnv(found) == (extreme ? each.of_extremes : each.of_noise)) continue;
      check::failed(__FILE__, __LINE__,
                    std::to_string(each.width) + " x " + std::to_string(each.height) + " to " +
                        std::to_string(each.size_x) + " x " + std::to_string(each.size_y) +
                        (extreme ? " (extremes)" : ""));
    }
  }
}

TEST("bicubic: the fixtures' pictures") {
  for (const Photo& each : photos) {
    const Ppm photo = read_ppm(check::fixture(std::string("images/") + each.name + ".ppm"));
    if (photo.width < 1) continue;  // reported already
    CHECK_EQUAL(fnv(resize_bicubic(photo.rgb.data(), photo.width, photo.height, 224, 224)), each.hash);
  }
}

TEST("bicubic: one colour stays, and a copy is a copy") {
  const std::vector<uint8_t> gray(33 * 77 * 3, 91);
  for (const uint8_t byte : resize_bicubic(gray.data(), 33, 77, 50, 20)) CHECK_EQUAL(int(byte), 91);
  const std::vector<uint8_t> noise = picture(19, 23, false);
  CHECK(resize_bicubic(noise.data(), 19, 23, 19, 23) == noise);
}

TEST("bicubic: errors") {
  const uint8_t pixel[3] = {1, 2, 3};
  CHECK_ERROR(code::image, "0 x 1", resize_bicubic(pixel, 0, 1, 224, 224));
  CHECK_ERROR(code::image, "at least 1", resize_bicubic(pixel, 1, -5, 224, 224));
  CHECK_ERROR(code::image, "at least 1", resize_bicubic(pixel, 1, 1, 0, 224));
  constexpr int huge = std::numeric_limits<int>::max();
  // 2^63.6 bytes: more than a vector may hold
  CHECK_ERROR(code::image, "memory", resize_bicubic(pixel, 1, 1, huge, huge));
}

TEST("bicubic: CLIP's normalisation") {
  const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f}, std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
  const uint8_t rgb[12] = {0, 255, 128, 1, 2, 3, 40, 50, 60, 255, 0, 77};
  float planes[12];
  normalise(planes, rgb, 2, mean, std);
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < 4; ++i) {
      // three float32 operations on numbers below 4: three roundings of at most 2^-23 each
      const double expected = (rgb[3 * i + c] / 255.0 - double(mean[c])) / double(std[c]);
      CHECK_NEAR(planes[4 * c + i], expected, 3 * 4.0 / (1 << 23));
    }
  }
}
