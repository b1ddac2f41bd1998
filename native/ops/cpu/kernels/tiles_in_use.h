// What both kinds of products on the matrix unit share: the configuration while a piece of work lasts.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// The tiles of this thread: shaped when they are needed, given up at the end of the piece however it ends. A thread that
/// keeps them would have 8 KiB more to save each time it is switched.
class TilesInUse {
 public:
  TilesInUse() = default;
  ~TilesInUse() {
    if (first_ > 0) tile_release();
  }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;

  /// set(shapes) for tiles of activations of so many rows (1 to 16; second: 0 where there is only one), unless that is how
  /// they are. Contents are lost.
  template <class Set>
  void shape(int first, int second, const Set& set) {
    if (first == first_ && second == second_) return;
    TileShapes shapes;
    set(shapes);
    tile_configure(shapes);
    first_ = first, second_ = second;
  }

 private:
  int first_ = 0, second_ = 0;
};

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
