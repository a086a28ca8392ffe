// What the emulator's tests share: runs under every schedule and order, and faults caught.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "emulator/settings.h"
#include "fla/status.h"

#if defined(__SANITIZE_ADDRESS__)
#define FLA_TEST_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FLA_TEST_UNDER_ASAN 1
#endif
#endif

namespace fla::detail::emulator_tests {

// Not the whole namespace: its launch would compete with that of common/launch.h.
using emulator::BlockOrder;
using emulator::KernelFault;
using emulator::LaunchRecord;
using emulator::Schedule;
using emulator::Settings;
using emulator::UseSettings;

inline const std::vector<Schedule> kAllSchedules = {Schedule::round_robin, Schedule::warps_ascending,
                                                    Schedule::warps_descending, Schedule::random};
inline const std::vector<BlockOrder> kAllOrders = {BlockOrder::forward, BlockOrder::reverse, BlockOrder::random};

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

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace fla::detail::emulator_tests
