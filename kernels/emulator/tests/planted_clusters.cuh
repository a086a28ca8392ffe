// Blocks of a cluster that tell each other a number, rightly or not.
#pragma once

#include "common/gpu.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/warp.cuh"

namespace fla::detail::planted {

enum class ClusterFault { none, unknown_block, outside_shared, part_of_the_cluster, no_barrier };

inline constexpr int kCluster = 4, kClusterThreads = 64;

// y[block] = sum of the block numbers of its cluster.
template <ClusterFault kFault>
FLA_KERNEL void tell_the_cluster(float* y) {
  float* told = shared_memory<float>();
  const int rank = cluster_rank(), thread = static_cast<int>(threadIdx.x);
  cluster_barrier();
  float outside = 0.0f;
  if (thread < kCluster) {
    const int to = kFault == ClusterFault::unknown_block && thread == 3 ? kCluster : thread;
    cluster_store(kFault == ClusterFault::outside_shared ? &outside : &told[rank], to, static_cast<float>(blockIdx.x));
  }
  if constexpr (kFault == ClusterFault::part_of_the_cluster) {
    if (rank == 2) return;
  }
  if constexpr (kFault != ClusterFault::no_barrier) cluster_barrier();
  if (thread == 0) y[blockIdx.x] = (told[0] + told[1]) + (told[2] + told[3]);
}

}  // namespace fla::detail::planted
