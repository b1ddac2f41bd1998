#include "simt/schedule.h"

#include <bit>
#include <cstring>

namespace minigpt4::simt {

namespace {
uint32_t lanes_of(unsigned threads, unsigned warp) {
  const unsigned left = threads - warp * warp_lanes;
  return left >= warp_lanes ? ~0u : (1u << left) - 1;
}
}  // namespace

void Schedule::begin_block(Order order, uint64_t seed, unsigned threads) {
  order_ = order;
  queued_ = 0;
  keep_ = false;
  if (order == Order::random || order == Order::priority) random_.restart(seed);
  for (unsigned warp = 0; warp * warp_lanes < threads; ++warp) {
    ready_[warp] = 0;
    if (order == Order::priority) {
      priority_[warp] = random_.next();
      first_lane_[warp] = uint8_t(random_.below(warp_lanes));
    }
    make_ready(warp, lanes_of(threads, warp));
  }
}

void Schedule::make_ready(unsigned warp, uint32_t lanes) {
  if (lanes == 0) return;
  if (ready_[warp] == 0) queue_[queued_++] = uint8_t(warp);
  ready_[warp] |= lanes;
}

void Schedule::make_all_ready(unsigned threads) {
  for (unsigned warp = 0; warp * warp_lanes < threads; ++warp) make_ready(warp, lanes_of(threads, warp));
  keep_ = false;
}

unsigned Schedule::take(unsigned place, unsigned lane) {
  const unsigned warp = queue_[place];
  ready_[warp] &= ~(1u << lane);
  if (ready_[warp] == 0) {
    --queued_;
    std::memmove(queue_ + place, queue_ + place + 1, queued_ - place);
    keep_ = false;
  }
  return warp * warp_lanes + lane;
}

unsigned Schedule::choose() {
  switch (order_) {
    case Order::fifo:
      return take(0, unsigned(std::countr_zero(ready_[queue_[0]])));
    case Order::lifo:
      return take(queued_ - 1, 31u - unsigned(std::countl_zero(ready_[queue_[queued_ - 1]])));
    case Order::random:
      return choose_random();
    case Order::priority:
      break;
  }
  return choose_by_priority();
}

unsigned Schedule::choose_random() {
  const unsigned place = random_.below(queued_);
  uint32_t lanes = ready_[queue_[place]];
  for (unsigned skip = random_.below(unsigned(std::popcount(lanes))); skip > 0; --skip) lanes &= lanes - 1;
  return take(place, unsigned(std::countr_zero(lanes)));
}

unsigned Schedule::choose_by_priority() {
  if (!keep_) {
    // rarely, or a warp that was behind once would stay behind for the whole block
    if (random_.below(16) == 0) {
      const unsigned warp = queue_[random_.below(queued_)];
      priority_[warp] = random_.next();
      first_lane_[warp] = uint8_t(random_.below(warp_lanes));
    }
    place_ = 0;
    for (unsigned i = 1; i < queued_; ++i) {
      if (priority_[queue_[i]] > priority_[queue_[place_]]) place_ = i;
    }
    keep_ = true;
  }
  const unsigned warp = queue_[place_], first = first_lane_[warp];
  const unsigned lane = (unsigned(std::countr_zero(std::rotr(ready_[warp], int(first)))) + first) % warp_lanes;
  return take(place_, lane);
}

}  // namespace minigpt4::simt
