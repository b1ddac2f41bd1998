// The model of AMX's tile unit against its description; and the level over it that has plain vectors, for all tests of ops.
#define MINIGPT4_LEVEL tile_unit
#include "amx_model.h"

#include <stdexcept>
#include <vector>

#include "check.h"
#include "ops/cpu/levels.h"

namespace minigpt4::cpu {
const Level& level_amx_model();
}

namespace unit = minigpt4::cpu::tile_unit;
using Floats = std::vector<float>;

namespace {

// a processor of another architecture has no such level, and an emulated one would take minutes for its model
#if defined(__x86_64__)
[[maybe_unused]] const bool added = (minigpt4::cpu::add_level(minigpt4::cpu::level_amx_model()), true);
#endif

/// A product of one tile each, c[2][2] += a[2][2] · b[1][2][2].
Floats unit_product(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, Floats c) {
  unit::TileShapes shapes;
  shapes.set(0, 2, 8);
  shapes.set(1, 2, 4);
  shapes.set(2, 1, 8);
  unit::tile_configure(shapes);
  unit::tile_load<0>(c.data(), 8);
  unit::tile_load<1>(a.data(), 4);
  unit::tile_load<2>(b.data(), 8);
  unit::tile_dot_bf16<0, 1, 2>();
  unit::tile_store<0>(c.data(), 8);
  unit::tile_release();
  return c;
}

template <class Body>
bool faults(const Body& body) {
  try {
    body();
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

}  // namespace

TEST("tile unit: the model's bf16 products are rounded and added as the SDM says") {
  const uint16_t one = 0x3f80, big = 0x4b80 /* 2^24 */, least = 0x0001, tiny = 0x1f80 /* 2^-64 */;
  // even chain: 2^24 · 1, odd chain: 1 · 1; their sum rounds to 2^24, c = -2^24 is added last
  CHECK_EQUAL(unit_product({big, one, 0, 0}, {one, one, 0, 0}, {-0x1p24f, 0, 0, 0})[0], 0.0f);
  // subnormal inputs and products are zero, what was there too
  CHECK_EQUAL(unit_product({least, 0, 0, 0}, {big, 0, 0, 0}, {0, 0, 0, 0})[0], 0.0f);
  CHECK_EQUAL(unit_product({tiny, 0, 0, 0}, {tiny, 0, 0, 0}, {0, 0, 0, 0})[0], 0.0f);
  CHECK_EQUAL(unit_product({0, 0, 0, 0}, {0, 0, 0, 0}, {0x1p-127f, 0, 0, 0})[0], 0.0f);
  // row m of a, column n of b
  const Floats found = unit_product({one, 0, 0, big}, {one, 0, 0, one}, {0, 0, 0, 0});
  CHECK(found == Floats({1, 0, 0, 0x1p24f}));
}

TEST("tile unit: the model faults where the unit would") {
  const auto shaped = [](int tile, int rows, int bytes) {
    unit::TileShapes shapes;
    shapes.set(tile, rows, bytes);
    unit::tile_configure(shapes);
    unit::tile_release();
  };
  shaped(0, 16, 64);
  CHECK(faults([&] { shaped(0, 17, 64); }));
  CHECK(faults([&] { shaped(0, 16, 68); }));
  CHECK(faults([&] { shaped(0, 16, 0); }));
  CHECK(faults([&] { shaped(8, 1, 4); }));
  CHECK(faults([] { unit::tile_zero<0>(); }));
  unit::TileShapes shapes;
  shapes.set(0, 2, 8);
  shapes.set(1, 2, 8);
  shapes.set(2, 1, 8);
  unit::tile_configure(shapes);
  unit::tile_zero<0>();
  CHECK(faults([] { unit::tile_zero<3>(); }));
  CHECK(faults([] { unit::tile_dot_bf16<0, 1, 2>(); }));  // a's 4 values a row, b's 2
  CHECK(faults([] { unit::tile_dot_i8<0, 0, 2>(); }));
  unit::tile_release();
}
