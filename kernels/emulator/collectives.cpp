// Where threads of a block meet: barriers and warp collectives, from both sides, the thread's and the
// scheduler's.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <vector>

#include "emulator/machine.h"
#include "emulator/sanitizers.h"

namespace fla::detail::emulator {
namespace {

// A header may be compiled more than once, so equal names may have several addresses.
bool same_place(const CallSite& a, const CallSite& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string text_of(const CallSite& site) { return std::string(site.file) + ":" + std::to_string(site.line); }

const char* text_of(Stop stop) {
  switch (stop) {
    case Stop::block_barrier:
      return "at block_barrier";
    case Stop::warpgroup_barrier:
      return "at warpgroup_barrier";
    case Stop::collective:
      return "at a warp collective";
    case Stop::transaction:
      return "at barrier_wait";
    case Stop::cluster_barrier:
      return "at cluster_barrier";
    case Stop::ended:
      return "ended";
    case Stop::none:
      break;
  }
  return "running";
}

}  // namespace

Machine& machine_of_kernel(CallSite site) {
  if (running_machine) return *running_machine;
  KernelFault::Place place;
  place.file = site.file;
  place.line = site.line;
  throw KernelFault("a device function is called outside a kernel", place);
}

void block_barrier(CallSite site) { machine_of_kernel(site).wait_for_block(site); }
void warpgroup_barrier(int groups, CallSite site) { machine_of_kernel(site).wait_for_warpgroups(groups, site); }
void cluster_barrier(CallSite site) { machine_of_kernel(site).wait_for_cluster(site); }
int cluster_rank() { return machine_of_kernel({}).cluster_rank(); }
void cluster_store(float* own, int rank, float value, CallSite site) {
  machine_of_kernel(site).store_to_block(own, rank, value, site);
}
void warp_barrier(unsigned mask, CallSite site) {
  machine_of_kernel(site).meet(Collective::barrier, 0, 0, mask, site);
}
unsigned ballot(bool predicate, unsigned mask, CallSite site) {
  return static_cast<unsigned>(machine_of_kernel(site).meet(Collective::ballot, predicate, 0, mask, site));
}
uint64_t exchange(uint64_t value, int source, unsigned mask, CallSite site) {
  return machine_of_kernel(site).meet(Collective::exchange, value, source, mask, site);
}
int current_lane() { return machine_of_kernel({}).lane().linear % kLanes; }

void report_misaligned(const void* address, int bytes) {
  char text[96];
  std::snprintf(text, sizeof text, "an access of %d bytes at %p is not aligned to them", bytes, address);
  machine_of_kernel({}).fail(text, {});
}

void Machine::wait_for_block(CallSite site) {
  void* order = &barrier_order_[barriers_ & 1];
  order_release(order);
  stop(Stop::block_barrier, site);
  order_acquire(order);
}

void Machine::wait_for_warpgroups(int groups, CallSite site) {
  lane_->barrier_threads = groups * kWarpgroup;
  const int group = lane_->linear / lane_->barrier_threads;
  void* order = &warpgroup_order_[group][warpgroup_barriers_[group] & 1];
  order_release(order);
  stop(Stop::warpgroup_barrier, site);
  order_acquire(order);
}

// Orders what every block of the cluster wrote before it.
void Machine::wait_for_cluster(CallSite site) {
  if (!cluster_) return wait_for_block(site);
  char* order = &(*cluster_)[0]->cluster_order_;
  order_release(order);
  stop(Stop::cluster_barrier, site);
  order_acquire(order);
}

// The same place in the shared memory of another block of the cluster.
void Machine::store_to_block(float* own, int rank, float value, CallSite site) {
  if (!arena_.contains(own, sizeof *own)) fail("cluster_store to an address outside shared memory", site);
  const int count = cluster_ ? static_cast<int>(cluster_->size()) : 1;
  if (rank < 0 || rank >= count) fail("cluster_store to block " + std::to_string(rank) + " of the cluster", site);
  char* base = static_cast<char*>(cluster_ ? (*cluster_)[static_cast<size_t>(rank)]->arena_.begin() : arena_.begin());
  *reinterpret_cast<float*>(base + arena_.offset(own)) = value;
}

// No thread can go on by itself. Those warpgroups do that have come to their barrier whole.
bool Machine::release_warpgroups() {
  bool released = false;
  for (int first = 0; first < threads_; first += kWarpgroup) {
    const Lane& one = lanes_[first];
    if (one.stop != Stop::warpgroup_barrier || first % one.barrier_threads != 0) continue;
    const int end = first + one.barrier_threads;
    int waiting = 0;
    for (int i = first; i < end && i < threads_; ++i)
      waiting += lanes_[i].stop == Stop::warpgroup_barrier && lanes_[i].barrier_threads == one.barrier_threads &&
                 same_place(lanes_[i].site, one.site);
    if (waiting < one.barrier_threads) continue;
    released = true;
    ++warpgroup_barriers_[first / one.barrier_threads];
    for (int i = first; i < end; ++i) set_ready(lanes_[i]);
  }
  return released;
}

// No thread can go on by itself: either the block is at its barrier, or it is stuck.
void Machine::release_block() {
  const Lane* first = nullptr;
  int waiting = 0;
  bool one_place = true;
  for (int i = 0; i < threads_; ++i) {
    const Lane& lane = lanes_[i];
    if (lane.stop != Stop::block_barrier) continue;
    if (!first) first = &lane;
    one_place &= same_place(first->site, lane.site);
    ++waiting;
  }
  if (waiting + ended_ < threads_) {
    const Lane* stuck = first;
    for (int i = 0; i < threads_; ++i)
      if (lanes_[i].stop != Stop::block_barrier && lanes_[i].stop != Stop::ended) stuck = &lanes_[i];
    throw fault("deadlock: " + waiting_threads(), stuck->site, stuck);
  }
  if (ended_ > 0)
    throw fault("block_barrier is reached by a part of the block only: " + waiting_threads(), first->site,
                first);
  if (!one_place)
    throw fault("the threads of the block wait at different barriers: " + waiting_threads(), first->site,
                first);
  ++barriers_;
  for (int i = 0; i < threads_; ++i) set_ready(lanes_[i]);
}

uint64_t Machine::meet(Collective collective, uint64_t value, int source, unsigned mask, CallSite site) {
  Lane& lane = *lane_;
  Warp& warp = warps_[lane.linear / kLanes];
  const unsigned self = 1u << (lane.linear % kLanes);
  if (!(mask & self)) fail("a thread calls a warp collective whose mask does not name it", site);
  if (mask & ~warp.present)
    fail("the mask of a warp collective names lanes that the block does not have", site);
  if (collective == Collective::exchange) {
    if (source < 0 || source >= kLanes) fail("a shuffle reads lane " + std::to_string(source), site);
    if (!(mask >> source & 1))
      fail("a shuffle reads lane " + std::to_string(source) + ", which its mask does not name", site);
  }
  lane.collective = collective;
  lane.value = value;
  lane.source = source;
  lane.mask = mask;
  // Only the barrier orders memory; shuffles and ballots do not.
  const bool ordered = under_tsan() && collective == Collective::barrier;
  if (ordered) join_rendezvous(lane);
  char* order = &warp.order[lane.rendezvous];
  if (ordered) order_release(order);
  warp.at_collective |= self;
  stop(Stop::collective, site);
  if (ordered) order_acquire(order);
  return lane.value;
}

// Lanes of one mask that wait together share a number; there is at most one such group of any mask at a time.
void Machine::join_rendezvous(Lane& lane) {
  const int base = lane.linear / kLanes * kLanes;
  Warp& warp = warps_[base / kLanes];
  for (unsigned others = lane.mask & warp.at_collective; others; others &= others - 1) {
    const Lane& other = lanes_[base + std::countr_zero(others)];
    if (other.mask != lane.mask || other.collective != Collective::barrier) continue;
    lane.rendezvous = other.rendezvous;
    return;
  }
  lane.rendezvous = warp.next_rendezvous++ % Warp::kRendezvous;
}

void Machine::release_collective(const Lane& last) {
  Warp& warp = warps_[last.linear / kLanes];
  Lane* lanes = &lanes_[last.linear / kLanes * kLanes];
  const unsigned mask = last.mask;
  if (mask & warp.ended)
    throw fault("a warp collective names lane " + std::to_string(std::countr_zero(mask & warp.ended)) +
                    ", which has ended",
                last.site, &last);
  if ((warp.at_collective & mask) != mask) return;
  for (unsigned left = mask; left; left &= left - 1) {
    const Lane& lane = lanes[std::countr_zero(left)];
    if (lane.mask != mask) return;  // it meets others first
    if (lane.collective != last.collective || !same_place(lane.site, last.site))
      throw fault("the lanes of one mask wait at different collectives, here and at " + text_of(lane.site),
                  last.site, &last);
  }
  exchange_values(lanes, mask);
  warp.at_collective &= ~mask;
  for (unsigned left = mask; left; left &= left - 1) set_ready(lanes[std::countr_zero(left)]);
}

void Machine::exchange_values(Lane* lanes, unsigned mask) {
  const Collective collective = lanes[std::countr_zero(mask)].collective;
  if (collective == Collective::barrier) return;
  uint64_t brought[kLanes] = {}, votes = 0;
  for (unsigned left = mask; left; left &= left - 1) {
    const int i = std::countr_zero(left);
    brought[i] = lanes[i].value;
    if (lanes[i].value != 0) votes |= uint64_t{1} << i;
  }
  for (unsigned left = mask; left; left &= left - 1) {
    Lane& lane = lanes[std::countr_zero(left)];
    lane.value = collective == Collective::ballot ? votes : brought[lane.source];
  }
}

void Machine::check_nobody_needs(const Lane& ended) {
  Warp& warp = warps_[ended.linear / kLanes];
  const unsigned self = 1u << (ended.linear % kLanes);
  warp.ended |= self;
  ++ended_;
  for (unsigned others = warp.at_collective; others; others &= others - 1) {
    const Lane& lane = lanes_[ended.linear / kLanes * kLanes + std::countr_zero(others)];
    if (lane.mask & self)
      throw fault(
          "a warp collective names lane " + std::to_string(ended.linear % kLanes) + ", which has ended",
          lane.site, &lane);
  }
}

std::string Machine::waiting_threads() const {
  std::string text;
  std::vector<std::tuple<const Lane*, int>> groups;
  for (int i = 0; i < threads_; ++i) {
    const Lane& lane = lanes_[i];
    auto same = [&](const auto& group) {
      const Lane& first = *std::get<0>(group);
      return first.stop == lane.stop && (lane.stop == Stop::ended || same_place(first.site, lane.site));
    };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end())
      groups.emplace_back(&lane, 1);
    else
      ++std::get<1>(*found);
  }
  for (const auto& [first, count] : groups) {
    if (!text.empty()) text += "; ";
    text += std::to_string(count) + (count == 1 ? " thread (" : " threads (first ") +
            std::to_string(first->linear) + ") " + text_of(first->stop);
    if (first->stop != Stop::ended) text += " " + text_of(first->site);
  }
  return text;
}

void Machine::wait_for_transaction(Transaction& t, CallSite site) {
  {
    const Bookkeeping unseen;
    t.waiting.push_back(lane_->linear);
  }
  stop(Stop::transaction, site);
}

void Machine::wake(Transaction& t) {
  for (int i : t.waiting) set_ready(lanes_[i]);
  t.waiting.clear();
}

}  // namespace fla::detail::emulator
