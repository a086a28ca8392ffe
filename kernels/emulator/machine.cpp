#include "emulator/machine.h"

#include <bit>

#include "emulator/sanitizers.h"

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim{}, gridDim{};

namespace fla::detail::emulator {

constinit thread_local void* shared_arena = nullptr;
constinit thread_local Machine* running_machine = nullptr;

namespace {

int lowest(unsigned bits) { return std::countr_zero(bits); }
int highest(unsigned bits) { return 31 - std::countl_zero(bits); }

int random_one(unsigned bits, std::mt19937_64& random) {
  for (auto skip = random() % static_cast<unsigned>(std::popcount(bits)); skip > 0; --skip) bits &= bits - 1;
  return lowest(bits);
}

}  // namespace

Machine::Machine() : lanes_(new Lane[kMostThreads]) {
  for (int i = 0; i < kMostThreads; ++i) lanes_[i].linear = i;
}

Machine::~Machine() = default;

void Machine::begin_launch(const LaunchRecord& launch, ThreadBody body, const Settings& settings) {
  launch_ = launch;
  body_ = body;
  settings_ = settings;
  threads_ = launch.block * launch.block_y;
  random_.seed(settings.seed);
  for (int i = 0; i < threads_; ++i)
    lanes_[i].index = {static_cast<unsigned>(i % launch.block), static_cast<unsigned>(i / launch.block), 0};
  blockDim = dim3(static_cast<unsigned>(launch.block), static_cast<unsigned>(launch.block_y));
  gridDim = dim3(static_cast<unsigned>(launch.grid), static_cast<unsigned>(launch.grid_y));
  shared_arena = arena_.resize(launch.shared_bytes);
}

// Makes this machine's block the one that the kernel sees.
void Machine::enter(int64_t block) {
  block_ = block;
  blockIdx = {static_cast<unsigned>(block % launch_.grid), static_cast<unsigned>(block / launch_.grid), 0};
  shared_arena = arena_.begin();
  running_machine = this;
}

void Machine::run_block(int64_t block) {
  cluster_ = nullptr;
  rank_ = 0;
  try {
    enter(block);
    start_threads();
    run_threads();
    running_machine = nullptr;
  } catch (...) {
    running_machine = nullptr;
    order_acquire(&end_order_);
    drop_threads();
    throw;
  }
  end_block();
}

void Machine::end_block() {
  order_acquire(&end_order_);
  check_block_end();
}

void Machine::run_cluster(const std::vector<std::unique_ptr<Machine>>& machines, int64_t first_block) {
  const int count = static_cast<int>(machines.size());
  try {
    for (int r = 0; r < count; ++r) {
      machines[static_cast<size_t>(r)]->cluster_ = &machines;
      machines[static_cast<size_t>(r)]->rank_ = r;
      machines[static_cast<size_t>(r)]->enter(first_block + r);
      machines[static_cast<size_t>(r)]->start_threads();
    }
    for (int waiting = count; waiting > 0;) {
      waiting = 0;
      for (const auto& machine : machines) {
        machine->enter(machine->block_);
        machine->run_threads();
        waiting += machine->waits_for_cluster();
      }
      for (const auto& machine : machines) {
        if (waiting > 0 && waiting < count && machine->waits_for_cluster())
          throw machine->fault("cluster_barrier is reached by a part of the cluster only", machine->lanes_[0].site,
                               &machine->lanes_[0]);
        if (waiting == count)
          for (int i = 0; i < machine->threads_; ++i) machine->set_ready(machine->lanes_[i]);
      }
    }
    running_machine = nullptr;
  } catch (...) {
    running_machine = nullptr;
    for (const auto& machine : machines) {
      order_acquire(&machine->end_order_);
      machine->drop_threads();
    }
    throw;
  }
  for (const auto& machine : machines) machine->end_block();
}

bool Machine::waits_for_cluster() const {
  for (int i = 0; i < threads_; ++i)
    if (lanes_[i].stop != Stop::cluster_barrier) return false;
  return true;
}

void Machine::start_threads() {
  arena_.poison();
  transactions_.clear();
  ready_warps_ = 0;
  ended_ = cursor_ = 0;
  for (int w = 0; w * kLanes < threads_; ++w) {
    const int lanes = threads_ - w * kLanes;
    Warp& warp = warps_[w];
    warp.present = lanes >= kLanes ? ~0u : (1u << lanes) - 1;
    warp.ready = warp.at_collective = warp.ended = 0;
  }
  for (int i = 0; i < threads_; ++i) {
    lanes_[i].copies.clear();
    lanes_[i].stores.clear();
    lanes_[i].fiber.start(&Machine::thread_main, static_cast<unsigned>(i));
    set_ready(lanes_[i]);
  }
}

void Machine::thread_main() {
  Machine& machine = *running_machine;
  Lane& lane = machine.lane();
  lane.fiber.entered();
  try {
    machine.body_.call(machine.body_.object);
    if (!lane.copies.empty()) machine.fail("the thread ended with asynchronous copies that it did not wait for", {});
    if (!lane.stores.empty()) machine.fail("the thread ended with bulk stores that it did not wait for", {});
  } catch (...) {
    machine.exception_ = std::current_exception();
  }
  order_release(&machine.end_order_);
  lane.stop = Stop::ended;
  lane.fiber.end();
}

void Machine::run_threads() {
  while (ended_ < threads_) {
    const int next = next_thread();
    if (next < 0) {
      if (waits_for_cluster()) return;
      if (!release_warpgroups()) release_block();
      continue;
    }
    Lane& lane = lanes_[next];
    resume(lane);
    if (lane.stop == Stop::collective) release_collective(lane);
    if (lane.stop == Stop::ended) check_nobody_needs(lane);
  }
}

int Machine::next_thread() {
  if (ready_warps_ == 0) return -1;
  int w = 0;
  switch (settings_.schedule) {
    case Schedule::warps_ascending:
      w = lowest(ready_warps_);
      return w * kLanes + lowest(warps_[w].ready);
    case Schedule::warps_descending:
      w = highest(ready_warps_);
      return w * kLanes + highest(warps_[w].ready);
    case Schedule::random:
      w = random_one(ready_warps_, random_);
      return w * kLanes + random_one(warps_[w].ready, random_);
    case Schedule::round_robin:
      break;
  }
  w = cursor_ / kLanes;
  unsigned ready = warps_[w].ready & (~0u << (cursor_ % kLanes));
  if (ready == 0) {
    const unsigned later = ready_warps_ & (~0u << w << 1);
    w = lowest(later ? later : ready_warps_);
    ready = warps_[w].ready;
  }
  const int next = w * kLanes + lowest(ready);
  cursor_ = (next + 1) % kMostThreads;
  return next;
}

void Machine::resume(Lane& lane) {
  Warp& warp = warps_[lane.linear / kLanes];
  warp.ready &= ~(1u << (lane.linear % kLanes));
  if (warp.ready == 0) ready_warps_ &= ~(1u << (lane.linear / kLanes));
  threadIdx = lane.index;
  lane_ = &lane;
  lane.fiber.resume(host_);
  lane_ = nullptr;
  if (!exception_) return;
  order_acquire(&end_order_);
  std::rethrow_exception(std::exchange(exception_, nullptr));
}

void Machine::stop(Stop why, CallSite site) {
  Lane& lane = *lane_;
  lane.stop = why;
  lane.site = site;
  lane.fiber.leave();
}

void Machine::set_ready(Lane& lane) {
  lane.stop = Stop::none;
  warps_[lane.linear / kLanes].ready |= 1u << (lane.linear % kLanes);
  ready_warps_ |= 1u << (lane.linear / kLanes);
}

void Machine::fail(const std::string& problem, CallSite site) { throw fault(problem, site, lane_); }

KernelFault Machine::fault(const std::string& problem, CallSite site, const Lane* lane) const {
  KernelFault::Place place;
  place.kernel = launch_.kernel;
  place.file = site.file;
  place.line = site.line;
  place.block = blockIdx.x;
  place.block_y = static_cast<int>(blockIdx.y);
  if (lane) {
    place.thread = static_cast<int>(lane->index.x);
    place.thread_y = static_cast<int>(lane->index.y);
  }
  return KernelFault(problem, place);
}

void Machine::drop_threads() {
  for (int i = 0; i < threads_; ++i)
    if (lanes_[i].stop != Stop::ended) lanes_[i].fiber.drop(host_);
}

void Machine::check_block_end() {
  if (const int64_t at = arena_.first_change_outside())
    throw fault("the block wrote outside its " + std::to_string(launch_.shared_bytes) +
                    " bytes of shared memory, at offset " + std::to_string(at),
                {}, nullptr);
  if (const Transaction* t = transactions_.unfinished())
    throw fault("the block ended with a bulk copy under way that nobody waited for", t->armed_at, nullptr);
}

}  // namespace fla::detail::emulator
