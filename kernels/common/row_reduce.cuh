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
  float of_warp[32][N];
};

// Sums over the whole block (a multiple of 32 threads); every thread gets the sums. Contains one block barrier, before
// which every thread has finished reading what it read before the call.
template <int N>
FLA_DEVICE void block_sum(float (&values)[N], BlockSlots<N>& slots) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  warp_sum(values);
  if (thread % kWarp == 0) {
    FLA_UNROLL
    for (int i = 0; i < N; ++i) slots.of_warp[thread / kWarp][i] = values[i];
  }
  block_barrier();
  FLA_UNROLL
  for (int i = 0; i < N; ++i) values[i] = slots.of_warp[0][i];
  for (int w = 1; w < warps; ++w) {
    FLA_UNROLL
    for (int i = 0; i < N; ++i) values[i] += slots.of_warp[w][i];
  }
}

FLA_DEVICE float block_sum(float value, BlockSlots<1>& slots) {
  float values[1] = {value};
  block_sum(values, slots);
  return values[0];
}

}  // namespace fla::detail
