#include <cmath>
#include <numeric>

#include "emulator/tests/emulated.h"
#include "emulator/tests/planted_copies.cuh"

namespace fla::detail::emulator_tests {
namespace {

using planted::AsyncFault;

constexpr size_t kFloats = planted::kAsyncRows * planted::kAsyncThreads * 2;

template <AsyncFault kFault>
Status run(std::vector<float>& y) {
  std::vector<float> x(kFloats + 2);
  std::iota(x.begin(), x.end(), 0.0f);
  y.assign(kFloats, 0.0f);
  return launch<&planted::through_own_ring<kFault>>(
      {.block = planted::kAsyncThreads, .shared_bytes = 2 * planted::kAsyncThreads * sizeof(float2)}, x.data(),
      y.data());
}

template <AsyncFault kFault>
void expect_fault(const std::string& problem) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    const KernelFault fault = fault_of([&] { return run<kFault>(y); });
    EXPECT_TRUE(contains(fault.problem(), problem)) << fault.what();
  }
}

template <AsyncFault kFault>
bool gives_nan() {
  std::vector<float> y;
  (void)fault_of([&] { return run<kFault>(y); });
  for (float v : y)
    if (std::isnan(v)) return true;
  return false;
}

TEST(AsyncCopy, AThreadsOwnRingIsRightUnderEverySchedule) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    ASSERT_TRUE(run<AsyncFault::none>(y).ok());
    for (size_t i = 0; i < kFloats; ++i) EXPECT_EQ(y[i], 2.0f * static_cast<float>(i));
  }
}

TEST(AsyncCopy, WithoutItsWaitASlotIsPoison) {
  EXPECT_TRUE(gives_nan<AsyncFault::no_wait>());
  EXPECT_TRUE(gives_nan<AsyncFault::group_too_late>());
}

TEST(AsyncCopy, BrokenRulesAreNamed) {
  expect_fault<AsyncFault::misaligned_source>("not aligned to its size");
  expect_fault<AsyncFault::outside_shared>("outside shared memory");
  expect_fault<AsyncFault::refill_too_early>("overwrites the destination");
  expect_fault<AsyncFault::left_behind>("did not wait for");
}

}  // namespace
}  // namespace fla::detail::emulator_tests
