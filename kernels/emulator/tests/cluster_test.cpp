#include <cmath>

#include "emulator/tests/emulated.h"
#include "emulator/tests/planted_clusters.cuh"

namespace fla::detail::emulator_tests {
namespace {

using planted::ClusterFault;
using planted::kCluster;

template <ClusterFault kFault>
Status run(std::vector<float>& y, int64_t grid = 3 * kCluster) {
  y.assign(static_cast<size_t>(grid), -1.0f);
  return launch<&planted::tell_the_cluster<kFault>>({.grid = grid,
                                                     .block = planted::kClusterThreads,
                                                     .cluster = kCluster,
                                                     .shared_bytes = kCluster * sizeof(float)},
                                                    y.data());
}

template <ClusterFault kFault>
void expect_fault(const std::string& problem) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    const KernelFault fault = fault_of([&] { return run<kFault>(y); });
    EXPECT_TRUE(contains(fault.problem(), problem)) << fault.what();
  }
}

TEST(Cluster, BlocksHearEachOtherUnderEverySchedule) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y;
    EXPECT_TRUE(run<ClusterFault::none>(y).ok());
    for (size_t b = 0; b < y.size(); ++b) EXPECT_EQ(y[b], 6.0f + 16.0f * static_cast<float>(b / kCluster)) << b;
  }
}

TEST(Cluster, WhatWasNotYetToldIsNotANumber) {
  std::vector<float> y;
  EXPECT_TRUE(run<ClusterFault::no_barrier>(y).ok());
  EXPECT_TRUE(std::isnan(y[0]));
}

TEST(Cluster, MistakesAreNamed) {
  expect_fault<ClusterFault::unknown_block>("block 4 of the cluster");
  expect_fault<ClusterFault::outside_shared>("outside shared memory");
  expect_fault<ClusterFault::part_of_the_cluster>("part of the cluster");
}

TEST(Cluster, AGridIsWholeClusters) {
  std::vector<float> y;
  const KernelFault fault = fault_of([&] { return run<ClusterFault::none>(y, kCluster + 1); });
  EXPECT_TRUE(contains(fault.problem(), "whole clusters")) << fault.what();
}

// A fault leaves the machines fit for the next launch.
TEST(Cluster, RunsAgainAfterAFault) {
  expect_fault<ClusterFault::outside_shared>("outside shared memory");
  std::vector<float> y;
  EXPECT_TRUE(run<ClusterFault::none>(y).ok());
  EXPECT_EQ(y[0], 6.0f);
}

}  // namespace
}  // namespace fla::detail::emulator_tests
