#include <cmath>
#include <numeric>

#include "emulator/tests/emulated.h"
#include "emulator/tests/planted_copies.cuh"

namespace fla::detail::emulator_tests {
namespace {

using planted::CopyFault;

constexpr int kRows = 5;

std::vector<float> rows(int count) {
  std::vector<float> x(static_cast<size_t>(count) * planted::kRowFloats);
  std::iota(x.begin(), x.end(), 0.0f);
  return x;
}

template <CopyFault kFault>
Status run(std::vector<float>& y) {
  // One row more than is copied, for the fault that fetches it. Vectors of this size are 16-byte aligned.
  const std::vector<float> x = rows(kRows + 1);
  y.assign(kRows * planted::kRowFloats, 0.0f);
  return launch<&planted::through_ring<kFault>>(
      {.block = planted::kCopyThreads, .shared_bytes = sizeof(planted::RingOfTwo)}, x.data(), y.data(),
      kRows);
}

template <CopyFault kFault>
std::vector<float> result(Schedule schedule) {
  const UseSettings use(with_schedule(schedule));
  std::vector<float> y;
  EXPECT_TRUE(run<kFault>(y).ok());
  return y;
}

// Under every schedule, the same fault.
template <CopyFault kFault>
void expect_fault(const std::string& problem) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    const KernelFault fault = fault_of([&] { return run<kFault>(y); });
    EXPECT_TRUE(contains(fault.problem(), problem)) << fault.what();
    EXPECT_TRUE(contains(fault.place().file, "planted_copies.cuh")) << fault.what();
  }
}

bool has_nan(const std::vector<float>& y) {
  for (float v : y)
    if (std::isnan(v)) return true;
  return false;
}

TEST(BulkCopy, RingIsRightUnderEverySchedule) {
  std::vector<float> right = rows(kRows);
  for (float& v : right) v *= 2.0f;
  for (Schedule schedule : kAllSchedules) EXPECT_EQ(result<CopyFault::none>(schedule), right);
}

TEST(BulkCopy, MissingWaitReadsPoison) {
  std::vector<float> y;
  if (kUnderTsan) return expect_race([&] { (void)fault_of([&] { return run<CopyFault::no_wait>(y); }); });
  const KernelFault fault = fault_of([&] { return run<CopyFault::no_wait>(y); });
  EXPECT_TRUE(has_nan(y));
  EXPECT_TRUE(contains(fault.problem(), "armed again")) << fault.what();
}

TEST(BulkCopy, WaitForThePhaseBeforeReadsPoison) {
  std::vector<float> y;
  (void)fault_of([&] { return run<CopyFault::wrong_parity>(y); });
  EXPECT_TRUE(has_nan(y));
}

TEST(BulkCopy, StageRefilledWhileItIsRead) {
  if (kUnderTsan) return expect_race([] { result<CopyFault::refill_too_early>(Schedule::round_robin); });
  for (Schedule schedule : kAllSchedules) EXPECT_TRUE(has_nan(result<CopyFault::refill_too_early>(schedule)));
}

TEST(BulkCopy, BrokenRulesAreNamed) {
  expect_fault<CopyFault::too_few_bytes>("another number of bytes");
  expect_fault<CopyFault::odd_size>("multiple of 16");
  expect_fault<CopyFault::misaligned_source>("not 16-byte aligned");
  expect_fault<CopyFault::outside_shared>("outside shared memory");
  expect_fault<CopyFault::no_init>("not initialised");
  expect_fault<CopyFault::armed_twice>("armed again");
  expect_fault<CopyFault::no_commit>("deadlock");
  expect_fault<CopyFault::overlapping>("overwrites the destination");
  expect_fault<CopyFault::left_behind>("nobody waited for");
}

TEST(BulkCopy, UseBeforeInitialisationShowsDepthFirst) {
  const UseSettings use(with_schedule(Schedule::warps_descending));
  std::vector<float> y;
  const KernelFault fault = fault_of([&] { return run<CopyFault::init_not_awaited>(y); });
  EXPECT_TRUE(contains(fault.problem(), "not initialised")) << fault.what();
}

}  // namespace
}  // namespace fla::detail::emulator_tests
