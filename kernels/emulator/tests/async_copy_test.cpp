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

using planted::StoreFault;

template <StoreFault kFault>
Status run_stores(std::vector<float>& y) {
  std::vector<float> x(planted::kAsyncRows * kWarp + 1);
  std::iota(x.begin(), x.end(), 0.0f);
  y.assign(x.size(), 0.0f);
  return launch<&planted::out_of_ring<kFault>>({.block = kWarp, .shared_bytes = 2 * kWarp * sizeof(float)}, x.data(), y.data());
}

template <StoreFault kFault>
void expect_store_fault(const std::string& problem) {
  std::vector<float> y;
  const KernelFault fault = fault_of([&] { return run_stores<kFault>(y); });
  EXPECT_TRUE(contains(fault.problem(), problem)) << fault.what();
}

template <StoreFault kFault>
bool stores_are_right() {
  std::vector<float> y;
  EXPECT_TRUE(run_stores<kFault>(y).ok());
  for (size_t i = 0; i + 1 < y.size(); ++i)
    if (y[i] != 2.0f * static_cast<float>(i)) return false;
  return true;
}

TEST(BulkStore, AWarpsRingIsRightUnderEverySchedule) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    EXPECT_TRUE(stores_are_right<StoreFault::none>());
  }
}

TEST(BulkStore, ASlotWrittenTooEarlyShowsInWhatWasStored) { EXPECT_FALSE(stores_are_right<StoreFault::no_wait>()); }

TEST(BulkStore, BrokenRulesAreNamed) {
  expect_store_fault<StoreFault::misaligned_target>("not a multiple of 16");
  expect_store_fault<StoreFault::outside_shared>("outside shared memory");
  expect_store_fault<StoreFault::left_behind>("did not wait for");
}

}  // namespace
}  // namespace fla::detail::emulator_tests
