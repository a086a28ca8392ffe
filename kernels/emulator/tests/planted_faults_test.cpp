// Each kernel is right under every schedule as it stands, and its planted fault is caught.
#include <cmath>
#include <cstdlib>
#include <memory>
#include <numeric>

#include "emulator/tests/emulated.h"
#include "emulator/tests/planted_kernels.cuh"

namespace fla::detail::emulator_tests {
namespace {

using namespace planted;

std::vector<float> counting(int n) {
  std::vector<float> x(static_cast<size_t>(n));
  std::iota(x.begin(), x.end(), 1.0f);
  return x;
}

// The place of the fault is in the kernels' file.
void expect_fault(const KernelFault& fault, const std::string& problem, int line = 0) {
  EXPECT_TRUE(contains(fault.problem(), problem)) << fault.what();
  EXPECT_TRUE(contains(fault.place().file, "planted_kernels.cuh")) << fault.what();
  if (line)
    EXPECT_EQ(fault.place().line, line) << fault.what();
  else
    EXPECT_GT(fault.place().line, 0);
  EXPECT_EQ(fault.place().block, 0);
  EXPECT_GE(fault.place().thread, 0);
}

template <bool kPlanted>
std::vector<float> run_scale(int n) {
  const std::vector<float> x = counting(n + 1);
  std::vector<float> y(static_cast<size_t>(n + 1), -1.0f);
  EXPECT_TRUE(
      launch<&scale<kPlanted>>({.grid = divide_up(n, 32), .block = 32}, x.data(), y.data(), int64_t{n}).ok());
  return y;
}

TEST(PlantedFaults, TailGuardWritesBehindTheEnd) {
  EXPECT_EQ(run_scale<false>(50)[49], 100.0f);
  EXPECT_EQ(run_scale<false>(50)[50], -1.0f);
  EXPECT_NE(run_scale<true>(50)[50], -1.0f);
}

TEST(PlantedFaultsDeathTest, TailGuardUnderAsan) {
  if (!kUnderAsan) GTEST_SKIP() << "not built with -fsanitize=address";
  const int64_t n = 50;
  const std::vector<float> x = counting(n + 1);
  const std::unique_ptr<float, void (*)(void*)> y(static_cast<float*>(std::malloc(n * sizeof(float))),
                                                  std::free);
  EXPECT_DEATH((void)launch<&scale<true>>({.grid = 2, .block = 32}, x.data(), y.get(), n),
               "heap-buffer-overflow");
}

template <bool kPlanted>
float run_sum_rows(Schedule schedule) {
  const UseSettings use(with_schedule(schedule));
  const std::vector<float> x = counting(200);
  float y = 0.0f;
  EXPECT_TRUE(launch<&sum_rows<kPlanted>>({.block = 128, .shared_bytes = 16}, x.data(), &y, 200).ok());
  return y;
}

TEST(PlantedFaults, MissingBarrierReadsPoison) {
  for (Schedule schedule : kAllSchedules) EXPECT_EQ(run_sum_rows<false>(schedule), 20100.0f);
  if (kUnderTsan) return expect_race([] { run_sum_rows<true>(Schedule::round_robin); });
  EXPECT_TRUE(std::isnan(run_sum_rows<true>(Schedule::round_robin)));
  EXPECT_TRUE(std::isnan(run_sum_rows<true>(Schedule::warps_ascending)));
}

template <bool kPlanted>
std::vector<float> run_sum_again(Schedule schedule) {
  const UseSettings use(with_schedule(schedule));
  const std::vector<float> x = counting(128);
  std::vector<float> y(128);
  EXPECT_TRUE(launch<&sum_again<kPlanted>>({.block = 128, .shared_bytes = 16}, x.data(), y.data(), 3).ok());
  return y;
}

TEST(PlantedFaults, MissingTrailingBarrierShowsDepthFirst) {
  const std::vector<float> right = run_sum_again<false>(Schedule::round_robin);
  for (Schedule schedule : kAllSchedules) EXPECT_EQ(run_sum_again<false>(schedule), right);
  if (kUnderTsan) return expect_race([] { run_sum_again<true>(Schedule::round_robin); });
  EXPECT_EQ(run_sum_again<true>(Schedule::round_robin), right)
      << "visible in step too: the test lost its point";
  EXPECT_NE(run_sum_again<true>(Schedule::warps_ascending), right);
  EXPECT_NE(run_sum_again<true>(Schedule::warps_descending), right);
}

template <bool kPlanted>
Status run_sum_warp(float& y) {
  const std::vector<float> x = counting(20);
  return launch<&sum_warp<kPlanted>>({.block = 32}, x.data(), &y, 20);
}

TEST(PlantedFaults, ThreadThatReturnsBeforeACollective) {
  float y = 0.0f;
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    EXPECT_TRUE(run_sum_warp<false>(y).ok());
    EXPECT_EQ(y, 210.0f);
    expect_fault(fault_of([&] { return run_sum_warp<true>(y); }), "which has ended", kLineOfEarlyReturn);
  }
}

template <bool kPlanted>
Status run_branches(int threads) {
  std::vector<float> y(static_cast<size_t>(threads));
  return launch<&meet_in_branches<kPlanted>>({.block = threads}, y.data());
}

TEST(PlantedFaults, DivergentBarriers) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    EXPECT_TRUE(run_branches<false>(64).ok());
    expect_fault(fault_of([] { return run_branches<true>(64); }), "different barriers");
    expect_fault(fault_of([] { return run_branches<true>(48); }), "different barriers");
  }
}

template <bool kPlanted>
Status run_apart(std::vector<float>& y) {
  y.assign(64, 0.0f);
  return launch<&meet_apart<kPlanted>>({.block = 64}, y.data());
}

TEST(PlantedFaults, Deadlock) {
  std::vector<float> y;
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    EXPECT_TRUE(run_apart<false>(y).ok());
    EXPECT_EQ(y, std::vector<float>(64, 0x5555));
    const KernelFault fault = fault_of([&] { return run_apart<true>(y); });
    expect_fault(fault, "deadlock");
    EXPECT_TRUE(contains(fault.problem(), "16 threads (first 0) at a warp collective")) << fault.what();
    EXPECT_TRUE(contains(fault.problem(), "48 threads (first 16) at block_barrier")) << fault.what();
  }
}

template <bool kPlanted>
std::vector<float> run_accumulate() {
  const std::vector<float> x = counting(32);
  std::vector<float> y(32);
  EXPECT_TRUE(launch<&accumulate<kPlanted>>({.block = 32, .shared_bytes = 128}, x.data(), y.data()).ok());
  return y;
}

TEST(PlantedFaults, UninitialisedSharedMemoryIsNan) {
  EXPECT_EQ(run_accumulate<false>(), counting(32));
  for (float value : run_accumulate<true>()) EXPECT_TRUE(std::isnan(value));
}

template <bool kPlanted>
Status run_copy() {
  alignas(16) static float x[132] = {}, y[132];
  return launch<&copy_vectors<kPlanted>>({.block = 32}, static_cast<const float*>(x), static_cast<float*>(y));
}

TEST(PlantedFaults, MisalignedVector) {
  EXPECT_TRUE(run_copy<false>().ok());
  const KernelFault fault = fault_of([] { return run_copy<true>(); });
  EXPECT_TRUE(contains(fault.problem(), "16 bytes")) << fault.what();
  EXPECT_TRUE(contains(fault.place().kernel, "copy_vectors")) << fault.what();
  EXPECT_EQ(fault.place().thread, 0);
}

template <bool kPlanted>
Status run_swap(std::vector<float>& y) {
  const std::vector<float> x = counting(32);
  y.assign(32, 0.0f);
  return launch<&swap_halves<kPlanted>>({.block = 32}, x.data(), y.data());
}

TEST(PlantedFaults, ShuffleOutsideItsMask) {
  std::vector<float> y;
  EXPECT_TRUE(run_swap<false>(y).ok());
  EXPECT_EQ(y[0], 9.0f);
  EXPECT_EQ(y[31], 24.0f);
  expect_fault(fault_of([&] { return run_swap<true>(y); }), "which its mask does not name");
}

template <bool kPlanted>
Status run_half(int threads = 32) {
  std::vector<float> y(static_cast<size_t>(threads));
  return launch<&meet_half<kPlanted>>({.block = threads}, y.data());
}

TEST(PlantedFaults, MasksMustNameTheCallerAndOnlyTheBlock) {
  EXPECT_TRUE(run_half<false>().ok());
  expect_fault(fault_of([] { return run_half<true>(); }), "whose mask does not name it");
  expect_fault(fault_of([] { return run_half<false>(24); }), "lanes that the block does not have");
}

template <bool kPlanted>
Status run_fill() {
  std::vector<float> y(64);
  return launch<&fill_slots<kPlanted>>({.block = 64, .shared_bytes = 256}, y.data());
}

TEST(PlantedFaults, WriteOutsideSharedMemory) {
  EXPECT_TRUE(run_fill<false>().ok());
  if (kUnderAsan) {
    EXPECT_DEATH((void)run_fill<true>(), "use-after-poison");
    return;
  }
  const KernelFault fault = fault_of([] { return run_fill<true>(); });
  EXPECT_TRUE(contains(fault.problem(), "outside its 256 bytes of shared memory, at offset 256"))
      << fault.what();
}

template <bool kPlanted>
std::vector<float> run_numbers() {
  std::vector<float> y(3 * 5 * 8 * 4, -1.0f);
  EXPECT_TRUE(
      launch<&number_threads<kPlanted>>({.grid = 5, .grid_y = 3, .block = 8, .block_y = 4}, y.data()).ok());
  return y;
}

TEST(PlantedFaults, WrongIndexInTwoDimensions) {
  std::vector<float> right(3 * 5 * 8 * 4);
  std::iota(right.begin(), right.end(), 0.0f);
  EXPECT_EQ(run_numbers<false>(), right);
  if (kUnderTsan) return expect_race([] { run_numbers<true>(); });
  EXPECT_NE(run_numbers<true>(), right);
}

TEST(PlantedFaults, LaunchesWorkAfterFaults) {
  float y = 0.0f;
  for (int i = 0; i < 20; ++i) {
    (void)fault_of([&] { return run_sum_warp<true>(y); });
    EXPECT_EQ(run_sum_rows<false>(Schedule::random), 20100.0f);
  }
}

}  // namespace
}  // namespace fla::detail::emulator_tests
