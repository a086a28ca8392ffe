// One multiprocessor that runs one block at a time, each thread of it on its own fiber. A machine belongs to
// one host thread, so that several may launch at once.
#pragma once

#include <exception>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "emulator/async_copies.h"
#include "emulator/fiber.h"
#include "emulator/settings.h"
#include "emulator/shared_arena.h"
#include "emulator/simt.h"
#include "emulator/transactions.h"

namespace fla::detail::emulator {

inline constexpr int kMostThreads = 1024, kLanes = 32, kMostWarps = kMostThreads / kLanes, kWarpgroup = 4 * kLanes;

enum class Stop : uint8_t { none, block_barrier, warpgroup_barrier, collective, transaction, cluster_barrier, ended };
enum class Collective : uint8_t { barrier, exchange, ballot };

struct Lane {
  Fiber fiber;
  uint3 index{};
  int linear = 0;
  Stop stop = Stop::ended;
  CallSite site;
  // At a collective: who must come, what this lane brings, and then what it gets.
  Collective collective = Collective::barrier;
  unsigned mask = 0;
  int source = 0;
  uint64_t value = 0;
  int rendezvous = 0;
  int barrier_threads = 0;  // at a barrier of warpgroups
  AsyncCopies copies, stores;  // to shared memory, and back
};

struct Warp {
  unsigned present = 0, ready = 0, at_collective = 0, ended = 0;
  // What TSan knows the rendezvous of this warp by, in turn.
  static constexpr int kRendezvous = 64;
  int next_rendezvous = 0;
  char order[kRendezvous];
};

class Machine {
 public:
  Machine();
  ~Machine();

  void begin_launch(const LaunchRecord& launch, ThreadBody body, const Settings& settings);
  void run_block(int64_t block);  // x + grid * y; throws KernelFault
  // The blocks of one cluster, each on a machine of its own that has begun the launch.
  static void run_cluster(const std::vector<std::unique_ptr<Machine>>& machines, int64_t first_block);

  // On the fiber of a thread:
  Lane& lane() { return *lane_; }
  Transactions& transactions() { return transactions_; }
  const SharedArena& arena() const { return arena_; }
  void wait_for_block(CallSite site);
  void wait_for_warpgroups(int groups, CallSite site);
  void wait_for_cluster(CallSite site);
  int cluster_rank() const { return rank_; }
  void store_to_block(float* own, int rank, float value, CallSite site);
  uint64_t meet(Collective collective, uint64_t value, int source, unsigned mask, CallSite site);
  void wait_for_transaction(Transaction& t, CallSite site);
  void wake(Transaction& t);
  // Throws, so that the frames of the kernel are unwound.
  [[noreturn]] void fail(const std::string& problem, CallSite site);

 private:
  static void thread_main();
  void enter(int64_t block);
  void start_threads();
  void run_threads();  // until all have ended, or all wait for the cluster
  bool waits_for_cluster() const;
  void end_block();
  int next_thread();
  void resume(Lane& lane);
  void stop(Stop why, CallSite site);
  void set_ready(Lane& lane);
  void join_rendezvous(Lane& lane);
  void release_collective(const Lane& last);
  void exchange_values(Lane* lanes, unsigned mask);
  void check_nobody_needs(const Lane& ended);
  bool release_warpgroups();
  void release_block();
  void check_block_end();
  void drop_threads();
  std::string waiting_threads() const;
  KernelFault fault(const std::string& problem, CallSite site, const Lane* lane) const;

  LaunchRecord launch_;
  ThreadBody body_{};
  Settings settings_;
  std::mt19937_64 random_;

  FiberHost host_;
  std::unique_ptr<Lane[]> lanes_;
  Warp warps_[kMostWarps];
  unsigned ready_warps_ = 0;
  int threads_ = 0, ended_ = 0, cursor_ = 0;
  Lane* lane_ = nullptr;
  std::exception_ptr exception_;  // what ended the kernel: a fault, or what it threw itself

  // Of the cluster that runs: its machines by rank, and this one's place.
  const std::vector<std::unique_ptr<Machine>>* cluster_ = nullptr;
  int rank_ = 0;
  int64_t block_ = 0;

  SharedArena arena_;
  Transactions transactions_{arena_};
  // Two objects in turn: a fast thread may reach the next barrier before a slow one has left this one.
  char barrier_order_[2], warpgroup_order_[kMostThreads / kWarpgroup][2], end_order_ = 0, cluster_order_ = 0;
  unsigned barriers_ = 0, warpgroup_barriers_[kMostThreads / kWarpgroup] = {};
};

// The machine whose kernel runs on this host thread; null outside kernels.
extern constinit thread_local Machine* running_machine;
Machine& machine_of_kernel(CallSite site);  // throws KernelFault outside kernels

}  // namespace fla::detail::emulator
