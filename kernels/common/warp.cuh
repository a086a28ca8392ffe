// Warp collectives and barriers, by the names kernels use. Under the emulator the same names come from
// emulator/simt.h, where each is a rendezvous that checks its mask and remembers the line that called it.
#pragma once

#include "common/gpu.h"

namespace fla::detail {

inline constexpr int kWarp = 32, kWarpgroup = 4 * kWarp;
inline constexpr unsigned kFullMask = 0xffffffffu;

#if defined(FLA_GPU)
FLA_DEVICE void block_barrier() { __syncthreads(); }
// Of the kGroups times four warps, from a multiple of that on, that this one is of. All calls of a kernel are of one kGroups.
template <int kGroups>
FLA_DEVICE void warpgroup_barrier() {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.x / (kGroups * kWarpgroup)), "n"(kGroups * kWarpgroup) : "memory");
}
FLA_DEVICE void warp_barrier(unsigned mask = kFullMask) { __syncwarp(mask); }
template <class T>
FLA_DEVICE T shuffle_xor(T value, int lane_mask, unsigned mask = kFullMask) {
  return __shfl_xor_sync(mask, value, lane_mask);
}
template <class T>
FLA_DEVICE T shuffle(T value, int lane, unsigned mask = kFullMask) {
  return __shfl_sync(mask, value, lane);
}
FLA_DEVICE unsigned ballot(bool predicate, unsigned mask = kFullMask) { return __ballot_sync(mask, predicate); }
#else
using emulator::ballot;
using emulator::block_barrier;
using emulator::shuffle;
using emulator::shuffle_xor;
using emulator::warp_barrier;
template <int kGroups>
void warpgroup_barrier(emulator::CallSite site = emulator::CallSite::current()) {
  emulator::warpgroup_barrier(kGroups, site);
}
#endif

}  // namespace fla::detail
