// What a program that runs kernels on the emulator may choose and ask: schedules, blocks, faults, the list of
// launches. No kernel types, so that the harness can include it.
//
// Settings belong to the process; every launch takes a copy when it starts, on whichever host thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fla::detail::emulator {

// A kernel broke a rule of the machine. Thrown by the launch that ran it; later launches work.
class KernelFault : public std::runtime_error {
 public:
  // Absent parts are empty or negative.
  struct Place {
    std::string kernel, file;
    int line = 0;
    int64_t block = -1;
    int block_y = 0, thread = -1, thread_y = 0;
  };
  KernelFault(const std::string& problem, const Place& place);

  const std::string& problem() const { return problem_; }
  const Place& place() const { return place_; }

 private:
  std::string problem_;
  Place place_;
};

// Which thread of a block runs next, each as far as its next collective. Depth-first schedules run one warp
// as far as it can go before any other starts: what lacks a barrier then shows in the results.
enum class Schedule { round_robin, warps_ascending, warps_descending, random };

enum class BlockOrder { forward, reverse, random };

struct LaunchRecord {
  std::string kernel;
  int64_t grid = 1;
  int grid_y = 1, block = 1, block_y = 1;
  size_t shared_bytes = 0;
  int cluster = 1;
};

struct Settings {
  Schedule schedule = Schedule::round_robin;
  BlockOrder block_order = BlockOrder::forward;
  uint64_t seed = 1;
  bool record_launches = false;
  // Blocks to run, as x + grid * y, for launches too large to run whole; null: all.
  std::function<std::vector<int64_t>(const LaunchRecord&)> select_blocks;
};

Settings current_settings();

// Holds for the life of the object.
class UseSettings {
 public:
  explicit UseSettings(Settings settings);
  ~UseSettings();
  UseSettings(const UseSettings&) = delete;
  UseSettings& operator=(const UseSettings&) = delete;

 private:
  Settings before_;
};

int64_t launch_count();  // since the program started
std::vector<LaunchRecord> recorded_launches();
void forget_launches();

// Planned failures, from the environment variable FLA_FAULT or inject_faults:
// "launch:5=illegal,alloc:3=oom,sync=lost". An event without a number fails every time. "launch" is the
// emulator's own event: its action "illegal" loses the device, so that every later launch fails too.
// Replaces the plan and starts counting anew. Throws std::invalid_argument.
void inject_faults(std::string_view plan);
// Counts the event; the action planned for it, or empty.
std::string fault_at(std::string_view event);

}  // namespace fla::detail::emulator
