// What the emulator's tests share: runs under every schedule and order, and faults caught.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "emulator/settings.h"
#include "fla/status.h"

#if defined(__has_feature)
#define FLA_TEST_HAS(feature) __has_feature(feature)
#else
#define FLA_TEST_HAS(feature) 0
#endif

namespace fla::detail::emulator_tests {

// Not the whole namespace: its launch would compete with that of common/launch.h.
using emulator::BlockOrder;
using emulator::KernelFault;
using emulator::LaunchRecord;
using emulator::Schedule;
using emulator::Settings;
using emulator::UseSettings;

#if defined(__SANITIZE_ADDRESS__) || FLA_TEST_HAS(address_sanitizer)
inline constexpr bool kUnderAsan = true;
#else
inline constexpr bool kUnderAsan = false;
#endif
#if defined(__SANITIZE_THREAD__) || FLA_TEST_HAS(thread_sanitizer)
inline constexpr bool kUnderTsan = true;
#else
inline constexpr bool kUnderTsan = false;
#endif

inline const std::vector<Schedule> kAllSchedules = {Schedule::round_robin, Schedule::warps_ascending,
                                                    Schedule::warps_descending, Schedule::random};
inline const std::vector<BlockOrder> kAllOrders = {BlockOrder::forward, BlockOrder::reverse,
                                                   BlockOrder::random};

inline Settings with_schedule(Schedule schedule) {
  Settings s;
  s.schedule = schedule;
  return s;
}

// The fault that `run` ends with; a failed test when there is none.
template <class Run>
KernelFault fault_of(Run&& run) {
  try {
    const Status s = run();
    ADD_FAILURE() << "no fault; status " << name_of(s.code) << " " << s.text;
  } catch (const KernelFault& fault) {
    return fault;
  }
  return KernelFault("none", {});
}

// TSan reports the race of the run, made in a process of its own. (Without TSan tests look at what the race
// did.)
template <class Run>
void expect_race(Run&& run) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // TSan sees little in the child of a plain fork
  auto run_and_exit = [&] {
    run();
    std::exit(0);
  };
  EXPECT_EXIT(run_and_exit(), testing::ExitedWithCode(66), "data race");
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace fla::detail::emulator_tests
