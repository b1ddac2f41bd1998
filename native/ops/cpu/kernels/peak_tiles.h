// What the matrix unit can do at most, from tiles alone: six chains of products of two tiles, which hides how long one takes.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

constexpr int kPeakTiles = 6;

/// Products of two whole tiles filled with the 32 bits of `word`; gives how many.
template <class Round>
double peak_of_tiles(int64_t rounds, uint32_t word, uint64_t* result, const Round& round) {
  alignas(64) uint32_t values[kTileRows * kTileRowBytes / 4];
  for (uint32_t& value : values) value = word;
  TilesInUse tiles;
  tiles.shape(kTileRows, kTileRows, [](TileShapes& shapes) {
    for (int tile = 0; tile < kTiles; ++tile) shapes.set(tile, kTileRows, kTileRowBytes);
  });
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  tile_zero<4>();
  tile_zero<5>();
  tile_load<6>(values, kTileRowBytes);
  tile_load<7>(values, kTileRowBytes);
  for (int64_t i = 0; i < rounds; ++i) round();
  tile_store<0>(values, kTileRowBytes);
  *result = values[0];
  return double(kPeakTiles) * double(rounds);
}

/// PeakLoop of signed bytes.
inline double tile_int8_peak(int64_t rounds, const PeakSeed& seed) {
  const double products = peak_of_tiles(rounds, seed.code * 0x01010101u, seed.result, [] {
    tile_dot_i8<0, 6, 7>();
    tile_dot_i8<1, 6, 7>();
    tile_dot_i8<2, 6, 7>();
    tile_dot_i8<3, 6, 7>();
    tile_dot_i8<4, 6, 7>();
    tile_dot_i8<5, 6, 7>();
  });
  return products * 2 * kTileRows * 16 * kTileRowBytes;
}

/// PeakLoop of bf16.
inline double tile_bf16_peak(int64_t rounds, const PeakSeed& seed) {
  uint32_t bits;
  __builtin_memcpy(&bits, &seed.factor, 4);
  const double products = peak_of_tiles(rounds, (bits & 0xffff0000u) | bits >> 16, seed.result, [] {
    tile_dot_bf16<0, 6, 7>();
    tile_dot_bf16<1, 6, 7>();
    tile_dot_bf16<2, 6, 7>();
    tile_dot_bf16<3, 6, 7>();
    tile_dot_bf16<4, 6, 7>();
    tile_dot_bf16<5, 6, 7>();
  });
  return products * 2 * kTileRows * 16 * kTileRowBytes / 2;
}

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
