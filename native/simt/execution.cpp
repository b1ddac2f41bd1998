// Blocks, one after the other, and the threads of one: who runs, who waits, who has ended.
#include "simt/execution.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <map>
#include <numeric>
#include <sstream>
#include <string>

#include "simt/faults.h"
#include "simt/gpu_simt.h"

namespace minigpt4::simt {

constinit thread_local Context* current = nullptr;
Events events;

namespace {

constexpr size_t argument_alignment = 64;

size_t argument_space(size_t bytes) {
  return (bytes + argument_alignment - 1) / argument_alignment * argument_alignment;
}

[[noreturn]] void fiber_entry() { execution().fiber_main(); }

}  // namespace

Execution& execution() {
  static Execution* made = new Execution;  // never destroyed: threads may launch while the process ends
  return *made;
}

bool same_site(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || (a.file && b.file && std::strcmp(a.file, b.file) == 0));
}

uint3 thread_index_elsewhere() { return current->thread_index; }
uint3 block_index_elsewhere() { return current->block->index; }
dim3 block_dimensions_elsewhere() { return current->block->launch->block; }
dim3 grid_dimensions_elsewhere() { return current->block->launch->grid; }

void preemption_point() { execution().preempt(); }
void abandon_launch() { execution().abandon(); }
void previous_waited_for() { current->waited = true; }
bool device_overlaps() { return device_shape().major >= 9; }

bool Execution::run(const LaunchInfo& launch, const KernelCall& call, size_t shared_limit) {
  launch_ = &launch;
  call_ = &call;
  shared_limit_ = shared_limit;
  options_ = options();
  abandoned_ = false;
  Stack* all = stacks();
  free_stacks_.clear();
  for (unsigned i = stacks_count; i > 0; --i) free_stacks_.push_back(&all[i - 1]);

  block_.launch = &launch;
  block_.threads = launch.block.x * launch.block.y * launch.block.z;
  block_.warps = (block_.threads + warp_lanes - 1) / warp_lanes;
  for (unsigned t = 0; t < block_.threads; ++t) {
    Context& context = threads_[t].context;
    context.thread_index = {t % launch.block.x, t / launch.block.x % launch.block.y,
                            t / launch.block.x / launch.block.y};
    context.thread = t;
    context.warp = t / warp_lanes;
    context.lane = t % warp_lanes;
    context.block = &block_;
  }
  for (unsigned w = 0; w < block_.warps; ++w) {
    const unsigned left = block_.threads - w * warp_lanes;
    warps_[w].present = left >= warp_lanes ? ~0u : (1u << left) - 1;
  }

  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  if (events.on_launch_begin) events.on_launch_begin(launch);
  // shuffled: begin somewhere, and go in steps that meet every block once
  uint64_t first = 0, step = 1;
  if (options_.order == Order::lifo) {
    first = blocks - 1;
    step = blocks - 1;
  } else if (options_.order != Order::fifo && blocks > 1) {
    Random random(options_.seed + launch.number);
    first = random.next() % blocks;
    do {
      step = 1 + random.next() % blocks;
    } while (std::gcd(step, blocks) != 1);
  }
  for (uint64_t i = 0, number = first; i < blocks && !abandoned_; ++i) {
    run_block(number);
    number = (number + step) % blocks;
  }
  if (events.on_launch_end) events.on_launch_end(launch);
  return !abandoned_;
}

void Execution::begin_block(uint64_t number) {
  const dim3& grid = launch_->grid;
  block_.number = number;
  block_.index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
  block_.epoch = 0;
  for (unsigned w = 0; w < block_.warps; ++w) {
    block_.warp_epoch[w] = 0;
    warps_[w].fresh = warps_[w].present;
    warps_[w].exited = 0;
    warps_[w].open = 0;
  }
  begin_shared_memory(block_);
  ended_ = 0;
  at_barrier_ = 0;
  schedule_.begin_block(options_.order, (options_.seed << 20) ^ (launch_->number << 40) ^ number, block_.threads);
}

bool Execution::run_block(uint64_t number) {
  begin_block(number);
  if (events.on_block_begin) events.on_block_begin(block_);
  Thread& first = threads_[schedule_.choose()];
  begin_thread(first, free_stacks_.back());
  free_stacks_.pop_back();
  start_fiber(host_, first.stack->begin, first.context.stack_end - argument_space(call_->argument_bytes), fiber_entry);
  current = nullptr;
  if (!abandoned_) check_shared_memory(block_);
  if (events.on_block_end) events.on_block_end(block_);
  return !abandoned_;
}

void Execution::begin_thread(Thread& thread, Stack* stack) {
  Context& context = thread.context;
  warps_[context.warp].fresh &= ~(1u << context.lane);
  context.waits_for = nullptr;
  context.copies.clear();
  context.copy_group = 0;
  context.waited = false;
  context.checker = 0;
  context.stack_begin = stack->begin;
  context.stack_end = stack->top;
  thread.stack = stack;
  if (stack->launch != launch_->number) {
    std::memcpy(stack->top - argument_space(call_->argument_bytes), call_->arguments, call_->argument_bytes);
    stack->launch = launch_->number;
  }
  active_ = &thread;
  current = &context;
}

void Execution::fiber_main() {
  for (;;) {
    try {
      call_->invoke(call_->kernel, current->stack_end - argument_space(call_->argument_bytes));
    } catch (const std::exception& thrown) {
      const OwnCode own;
      report(FindingKind::exception, nullptr, 0, std::string("an exception left the kernel: ") + thrown.what());
      abandon();
    } catch (...) {
      report(FindingKind::exception, nullptr, 0, "an exception of an unknown kind left the kernel");
      abandon();
    }
    thread_ends();
  }
}

/// Returns when another thread shall begin on this very stack.
void Execution::thread_ends() {
  Context& me = *current;
  Warp& warp = warps_[me.warp];
  const uint32_t bit = 1u << me.lane;
  if (!me.copies.empty()) {
    const OwnCode own;
    const Site site = me.copies.front().site;
    report(FindingKind::copy, site.file, site.line,
           "the thread ended with " + std::to_string(me.copies.size()) +
               " cp.async unfinished, of which this is the first: a cp_wait is missing");
  }
  for (unsigned g = 0; g < warp.open; ++g) {
    const Group& group = warp.groups[g];
    if ((group.mask & bit) == 0) continue;
    const OwnCode own;
    std::ostringstream words;
    words << group.operation << " with mask 0x" << std::hex << group.mask << std::dec << " waits for lane " << me.lane
          << " of warp " << me.warp << ", which ended; " << standing();
    report(FindingKind::collective, group.site.file, group.site.line, words.str());
    abandon();
  }
  if (launch_->overlapping && !me.waited) {
    const OwnCode own;
    report(FindingKind::overlap, launch_->site.file, launch_->site.line,
           "launched here to overlap, and the thread never waited for the launch before: wait_for_previous() has to be "
           "the first that every thread does");
  }
  warp.exited |= bit;
  ++ended_;
  if (events.on_thread_end) events.on_thread_end(me);
  Thread& mine = *active_;
  if (!schedule_.any()) {
    if (ended_ < block_.threads) stuck();
    free_stacks_.push_back(mine.stack);
    switch_fiber(mine.state, host_);  // for good
  }
  Thread& next = threads_[schedule_.choose()];
  if (warps_[next.context.warp].fresh >> next.context.lane & 1) {
    begin_thread(next, mine.stack);
    return;
  }
  free_stacks_.push_back(mine.stack);
  active_ = &next;
  current = &next.context;
  switch_fiber(mine.state, next.state);  // for good
}

/// Leaves `mine`, and begins `next` or goes on with it.
void Execution::go_on_with(Thread& next, Thread& mine) {
  if (warps_[next.context.warp].fresh >> next.context.lane & 1) {
    Stack* stack = free_stacks_.back();
    free_stacks_.pop_back();
    begin_thread(next, stack);
    start_fiber(mine.state, stack->begin, next.context.stack_end - argument_space(call_->argument_bytes), fiber_entry);
  } else {
    active_ = &next;
    current = &next.context;
    switch_fiber(mine.state, next.state);
  }
}

void Execution::run_next() {
  Thread& mine = *active_;
  Thread& next = threads_[schedule_.choose()];
  if (&next == &mine) return;
  go_on_with(next, mine);
}

void Execution::park() {
  if (!schedule_.any()) stuck();
  run_next();
}

void Execution::preempt() {
  if (options_.preempt_every == 0 || !current) return;
  if (!schedule_.any() || schedule_.random().below(options_.preempt_every) != 0) return;
  Thread& mine = *active_;
  // the other one first: this thread joins the ready ones only after it is chosen, or nothing would change
  Thread& next = threads_[schedule_.choose_random()];
  schedule_.make_ready(mine.context.warp, 1u << mine.context.lane);
  go_on_with(next, mine);
}

void Execution::abandon() {
  abandoned_ = true;
  OwnCode::end();
  FiberState nobody;
  switch_fiber(nobody, host_);
  __builtin_unreachable();
}

bool Execution::arrive(const char* operation, uint32_t mask, Site site) {
  Context& me = *current;
  Warp& warp = warps_[me.warp];
  const uint32_t bit = 1u << me.lane;
  Group* group = nullptr;
  for (unsigned g = 0; g < warp.open; ++g) {
    if (warp.groups[g].mask & bit) {
      group = &warp.groups[g];
      break;
    }
  }
  if (!group) {
    const uint32_t never = mask & (~warp.present | warp.exited);
    if (never != 0 || (mask & bit) == 0) [[unlikely]] {
      const OwnCode own;
      std::ostringstream words;
      words << operation << " with mask 0x" << std::hex << mask << std::dec;
      if ((mask & bit) == 0) {
        words << " by lane " << me.lane << ", which the mask leaves out";
      } else {
        const int lane = std::countr_zero(never);
        words << " names lane " << lane << ", which "
              << (warp.exited >> lane & 1 ? "has ended" : "the block does not have");
      }
      words << "; " << standing();
      report(FindingKind::collective, site.file, site.line, words.str());
      abandon();
    }
    group = &warp.groups[warp.open++];
    *group = {mask, 0, operation, site};
  } else if (group->mask != mask || group->operation != operation ||
             (!same_site(group->site, site) && std::strcmp(operation, "__syncwarp") != 0)) [[unlikely]] {
    const OwnCode own;
    std::ostringstream words;
    words << "lane " << me.lane << " of warp " << me.warp << " comes to " << operation << " with mask 0x" << std::hex
          << mask << " while other lanes of it wait in " << group->operation << " with mask 0x" << group->mask
          << std::dec << " at " << group->site.file << ":" << group->site.line;
    report(FindingKind::collective, site.file, site.line, words.str());
    abandon();
  }
  group->arrived |= bit;
  if (group->arrived == mask) {
    *group = warp.groups[--warp.open];
    return true;
  }
  me.waits = site;
  me.waits_for = operation;
  park();
  me.waits_for = nullptr;
  return false;
}

void Execution::release(uint32_t mask) { schedule_.make_ready(current->warp, mask & ~(1u << current->lane)); }

void Execution::barrier(Site site) {
  Context& me = *current;
  if (at_barrier_ == 0) {
    barrier_site_ = site;
  } else if (!same_site(barrier_site_, site)) {
    const OwnCode own;
    std::ostringstream words;
    words << "the thread comes to a __syncthreads while " << at_barrier_ << " others of its block wait at another one, "
          << barrier_site_.file << ":" << barrier_site_.line;
    report(FindingKind::barrier, site.file, site.line, words.str());
    abandon();
  }
  if (++at_barrier_ == block_.threads) {
    at_barrier_ = 0;
    ++block_.epoch;
    if (events.on_barrier) events.on_barrier(block_);
    // the last to come goes on in its turn: else it would always be the first behind every barrier
    schedule_.make_all_ready(block_.threads);
    run_next();
    return;
  }
  me.waits = site;
  me.waits_for = "__syncthreads";
  park();
  me.waits_for = nullptr;
}

std::string Execution::standing() const {
  std::map<std::string, unsigned> places;
  for (unsigned t = 0; t < block_.threads; ++t) {
    const Context& context = threads_[t].context;
    const Warp& warp = warps_[context.warp];
    if (warp.exited >> context.lane & 1 || schedule_.is_ready(t) || !context.waits_for) continue;
    std::ostringstream place;
    place << context.waits_for << " at " << context.waits.file << ":" << context.waits.line;
    for (unsigned g = 0; g < warp.open; ++g) {
      if (warp.groups[g].arrived >> context.lane & 1) place << " (mask 0x" << std::hex << warp.groups[g].mask << ")";
    }
    ++places[place.str()];
  }
  std::ostringstream text;
  for (const auto& [place, count] : places)
    text << count << (count == 1 ? " thread waits in " : " threads wait in ") << place << ", ";
  text << ended_ << " of " << block_.threads << " ended";
  return text.str();
}

void Execution::stuck() {
  const OwnCode own;
  Site site = barrier_site_;
  bool all_at_barrier = at_barrier_ > 0 && at_barrier_ + ended_ == block_.threads;
  for (unsigned w = 0; w < block_.warps && !all_at_barrier; ++w) {
    if (warps_[w].open > 0) site = warps_[w].groups[0].site;
  }
  report(all_at_barrier ? FindingKind::barrier : FindingKind::deadlock, site.file, site.line,
         (all_at_barrier ? "__syncthreads that not all threads of the block come to: "
                         : "no thread of the block can run: ") +
             standing());
  abandon();
}

}  // namespace minigpt4::simt
