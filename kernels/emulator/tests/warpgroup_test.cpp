#include "common/warpgroup.cuh"

#include <cmath>

#include "common/launch.h"
#include "emulator/tests/emulated.h"

namespace fla::detail::emulator_tests {
namespace {

constexpr int kRounds = 3, kPair = 2 * kWarpgroup, kThreads = 2 * kPair;

enum class BarrierFault { none, no_barrier, part_of_the_pair };

// Two pairs of warpgroups, of which the second goes fewer rounds: every thread tells the one across its pair.
template <BarrierFault kFault>
FLA_KERNEL void tell_the_pair(float* y) {
  float* told = shared_memory<float>();
  const int thread = static_cast<int>(threadIdx.x), pair = thread / kPair;
  for (int round = 0; round < kRounds - pair; ++round) {
    told[thread] = static_cast<float>(1000 * round + thread);
    if (kFault == BarrierFault::part_of_the_pair && thread >= kThreads - kWarp) return;
    if (kFault != BarrierFault::no_barrier) warpgroup_barrier<2>();
    store_float(y + round * kThreads + thread, told[thread ^ kWarpgroup]);
    warpgroup_barrier<2>();
  }
}

template <BarrierFault kFault>
Status tell(std::vector<float>& y) {
  y.assign(kRounds * kThreads, -1.0f);
  return launch<&tell_the_pair<kFault>>({.grid = 1, .block = kThreads, .shared_bytes = kThreads * sizeof(float)}, y.data());
}

TEST(WarpgroupBarrier, HoldsItsWarpgroupsAndNoOthersUnderEverySchedule) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    ASSERT_TRUE(tell<BarrierFault::none>(y).ok());
    for (int i = 0; i < kRounds * kThreads; ++i) {
      const int round = i / kThreads, thread = i % kThreads;
      const int expected = round < kRounds - thread / kPair ? 1000 * round + (thread ^ kWarpgroup) : -1;
      ASSERT_EQ(y[static_cast<size_t>(i)], static_cast<float>(expected)) << i;
    }
  }
}

TEST(WarpgroupBarrier, WhatWasNotYetToldIsNotANumber) {
  std::vector<float> y;
  ASSERT_TRUE(tell<BarrierFault::no_barrier>(y).ok());
  EXPECT_TRUE(std::isnan(y[0]));
}

TEST(WarpgroupBarrier, ReachedByAPartOfItsWarpgroupsIsADeadlock) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    const KernelFault fault = fault_of([&] { return tell<BarrierFault::part_of_the_pair>(y); });
    EXPECT_TRUE(contains(fault.problem(), "deadlock")) << fault.what();
    EXPECT_TRUE(contains(fault.problem(), "at warpgroup_barrier")) << fault.what();
  }
}

// y = c + A B for sums of 16: A [64][16] and B [16][64] from panels of values that 16 bits hold exactly, or their transposes.
template <bool kTransposedA, bool kTransposedB>
FLA_KERNEL void multiply(const float* a, const float* b, float* y) {
  bf16* panels = shared_memory<bf16>();
  constexpr int kShift = 16;  // columns, or rows: operands need not begin where a panel does
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const auto put = [&](bf16* panel, bool rows_are_sums, int row, int sum, float value) {
    const int panel_row = rows_are_sums ? kShift + sum : row, column = rows_are_sums ? row : kShift + sum;
    store_float(panel + place_in_panel(panel_row, column / 8) + column % 8, value);
  };
  for (int i = thread; i < 64 * 16; i += kWarpgroup) {
    put(panels, kTransposedA, i / 16, i % 16, a[i]);
    put(panels + 64 * kPanel, kTransposedB, i % 64, i / 64, b[i]);
  }
  publish_to_async();
  block_barrier();
  PanelSums sums;
  for (int i = 0; i < 32; ++i) sums[i] = 1;
  const Panels<bf16> first(panels), second(panels + 64 * kPanel);
  const auto shift = [](bool rows) { return rows ? kShift * kPanel / 8 : kShift / 8; };
  warpgroup_begin(sums);
  warpgroup_mma<kTransposedA, kTransposedB>(sums, first + shift(kTransposedA), second + shift(kTransposedB), false);
  warpgroup_mma<kTransposedA, kTransposedB>(sums, first + shift(kTransposedA), second + shift(kTransposedB));
  warpgroup_commit();
  warpgroup_wait<0>();
  warpgroup_end(sums);
  for (int i = 0; i < 32; ++i) {
    const int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    store_float(y + row * 64 + column, sums[i]);
  }
}

template <bool kTransposedA, bool kTransposedB>
void expect_product() {
  std::vector<float> a(64 * 16), b(16 * 64), y(64 * 64);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(i * 7 % 31) - 15;
    b[i] = static_cast<float>(i * 11 % 29) - 14;
  }
  ASSERT_TRUE((launch<&multiply<kTransposedA, kTransposedB>>(
                   {.grid = 1, .block = kWarpgroup, .shared_bytes = 2 * 64 * kPanel * sizeof(bf16)}, a.data(), b.data(), y.data())
                   .ok()));
  for (size_t m = 0; m < 64; ++m)
    for (size_t n = 0; n < 64; ++n) {
      float expected = 0;
      for (size_t k = 0; k < 16; ++k) expected += 2 * a[m * 16 + k] * b[k * 64 + n];
      ASSERT_EQ(y[m * 64 + n], expected) << m << ", " << n;
    }
}

TEST(WarpgroupProduct, OfRowsAndColumnsEitherWay) {
  expect_product<false, false>();
  expect_product<false, true>();
  expect_product<true, false>();
  expect_product<true, true>();
}

}  // namespace
}  // namespace fla::detail::emulator_tests
