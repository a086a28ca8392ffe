// Reductions over the threads that share a row: a fixed tree whose shape depends on the number of threads alone, so
// that results are the same bits in every launch. Thread-local partials first, then a warp butterfly, then one shared
// slot per warp that every thread sums itself: one barrier per reduction, no broadcast step.
#pragma once

#include "common/gpu.h"
#include "common/warp.cuh"

namespace fla::detail {

// Sums each of `values` over `lanes` neighbouring lanes (a power of two up to 32); every lane gets the sum.
template <int N>
FLA_DEVICE void warp_sum(float (&values)[N], int lanes = kWarp) {
  FLA_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    if (step < lanes) {
      FLA_UNROLL
      for (int i = 0; i < N; ++i) values[i] += shuffle_xor(values[i], step);
    }
  }
}

FLA_DEVICE float warp_sum(float value, int lanes = kWarp) {
  float values[1] = {value};
  warp_sum(values, lanes);
  return values[0];
}

// Shared slots for one block reduction of N values. A loop alternates between two sets, so that one barrier per
// reduction is enough: a set is written again only after the next reduction's barrier.
template <int N>
struct BlockSlots {
  alignas(16) float of_warp[N][32];
};

// Sums over the whole block (a multiple of 32 threads, at most 32 kMaxWarps); every thread gets the sums. Contains one
// block barrier, before which every thread has finished reading what it read before the call. Every thread adds the
// slots itself, four to a load; those of warps that the block does not have hold zeros.
template <int kMaxWarps = 16, int N>
FLA_DEVICE void block_sum(float (&values)[N], BlockSlots<N>& slots) {
  static_assert(kMaxWarps % 4 == 0);
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  warp_sum(values);
  FLA_UNROLL
  for (int i = 0; i < N; ++i) {
    if (thread % kWarp == 0) slots.of_warp[i][thread / kWarp] = values[i];
    if (thread >= warps && thread < kMaxWarps) slots.of_warp[i][thread] = 0.0f;
  }
  block_barrier();
  FLA_UNROLL
  for (int i = 0; i < N; ++i) {
    const float4* four = reinterpret_cast<const float4*>(slots.of_warp[i]);
    float4 sum = four[0];
    FLA_UNROLL
    for (int w = 1; w < kMaxWarps / 4; ++w) {
      const float4 next = four[w];
      sum.x += next.x;
      sum.y += next.y;
      sum.z += next.z;
      sum.w += next.w;
    }
    values[i] = (sum.x + sum.y) + (sum.z + sum.w);
  }
}

template <int kMaxWarps = 16>
FLA_DEVICE float block_sum(float value, BlockSlots<1>& slots) {
  float values[1] = {value};
  block_sum<kMaxWarps>(values, slots);
  return values[0];
}

}  // namespace fla::detail
