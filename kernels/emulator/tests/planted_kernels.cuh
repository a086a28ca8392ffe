// Small kernels, right as they stand and wrong with kPlanted: one fault each, of the kinds that happen. The
// text is that of any kernel of ours and compiles with nvcc too.
#pragma once

#include "common/alignment.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "common/vector.cuh"

namespace fla::detail::planted {

// y[i] = 2 x[i]. Planted: the guard lets one thread too many through.
template <bool kPlanted>
FLA_KERNEL void scale(const float* x, float* y, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (kPlanted ? i <= n : i < n) store_float(y + i, 2.0f * load_float(x + i));
}

// Sums rows of `columns` floats, one block per row. Planted: nothing between the partial sums and their
// reader.
template <bool kPlanted>
FLA_KERNEL void sum_rows(const float* x, float* y, int columns) {
  float* slots = shared_memory<float>();
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  float sum = 0.0f;
  for (int c = thread; c < columns; c += static_cast<int>(blockDim.x))
    sum += load_float(x + static_cast<int64_t>(blockIdx.x) * columns + c);
  sum = warp_sum(sum);
  if (thread % kWarp == 0) slots[thread / kWarp] = sum;
  if (!kPlanted) block_barrier();
  if (thread != 0) return;
  for (int w = 1; w < warps; ++w) sum += slots[w];
  store_float(y + blockIdx.x, sum);
}

// y = the sum of x over the block, `rounds` times over, each round adding what the last one found. Planted: a
// slot of the next round may be written while a slower warp still reads this one's.
template <bool kPlanted>
FLA_KERNEL void sum_again(const float* x, float* y, int rounds) {
  float* slots = shared_memory<float>();
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  float value = load_float(x + thread);
  for (int r = 0; r < rounds; ++r) {
    const float mine = warp_sum(value);
    if (thread % kWarp == 0) slots[thread / kWarp] = mine;
    block_barrier();
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += slots[w];
    value += sum;
    if (!kPlanted) block_barrier();
  }
  store_float(y + thread, value);
}

// Sums n <= 32 values in one warp. Planted: lanes without a value leave before the sum that names them.
inline constexpr int kLineOfEarlyReturn = __LINE__ + 6;
template <bool kPlanted>
FLA_KERNEL void sum_warp(const float* x, float* y, int n) {
  const int lane = static_cast<int>(threadIdx.x);
  if (kPlanted && lane >= n) return;
  float value = lane < n ? load_float(x + lane) : 0.0f;
  for (int step = 16; step > 0; step /= 2) value += shuffle_xor(value, step);
  if (lane == 0) store_float(y, value);
}

// Planted: two barriers where there must be one.
template <bool kPlanted>
FLA_KERNEL void meet_in_branches(float* y) {
  const bool low = threadIdx.x < 32;
  if (kPlanted && low) {
    block_barrier();
    store_float(y + threadIdx.x, 1.0f);
  } else {
    block_barrier();
    store_float(y + threadIdx.x, 2.0f);
  }
}

// Planted: half of a warp waits for the other half, which waits for the block.
template <bool kPlanted>
FLA_KERNEL void meet_apart(float* y) {
  unsigned votes = 0;
  if (!kPlanted || threadIdx.x < 16) votes = ballot(threadIdx.x % 2 == 0);
  block_barrier();
  store_float(y + threadIdx.x, static_cast<float>(votes & 0xffffu));
}

// Planted: the sum starts from whatever lies in shared memory.
template <bool kPlanted>
FLA_KERNEL void accumulate(const float* x, float* y) {
  float* sums = shared_memory<float>();
  if (!kPlanted) sums[threadIdx.x] = 0.0f;
  sums[threadIdx.x] += load_float(x + threadIdx.x);
  store_float(y + threadIdx.x, sums[threadIdx.x]);
}

// Planted: vectors that start at an odd element.
template <bool kPlanted>
FLA_KERNEL void copy_vectors(const float* x, float* y) {
  const int at = static_cast<int>(threadIdx.x) * 4 + (kPlanted ? 1 : 0);
  store<float, 4>(y + at, load<float, 4>(x + at));
}

// Planted: a lane reads a neighbour that its mask does not name.
template <bool kPlanted>
FLA_KERNEL void swap_halves(const float* x, float* y) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  store_float(y + lane, shuffle_xor(load_float(x + lane), kPlanted ? 16 : 8, mask));
}

// Planted: the mask names the other half.
template <bool kPlanted>
FLA_KERNEL void meet_half(float* y) {
  const unsigned mask = (threadIdx.x % kWarp < 16) != kPlanted ? 0x0000ffffu : 0xffff0000u;
  warp_barrier(mask);
  store_float(y + threadIdx.x, 1.0f);
}

// Planted: one more slot than the launch paid for.
template <bool kPlanted>
FLA_KERNEL void fill_slots(float* y) {
  float* slots = shared_memory<float>();
  slots[threadIdx.x + (kPlanted ? 1 : 0)] = static_cast<float>(threadIdx.x);
  block_barrier();
  if (threadIdx.x > 0) store_float(y + threadIdx.x, slots[threadIdx.x]);
}

// One float at the start of each row. Planted: the row's offset is computed in 32 bits.
template <bool kPlanted>
FLA_KERNEL void mark_rows(float* y, int columns) {
  const uint32_t narrow = static_cast<uint32_t>(blockIdx.x) * static_cast<uint32_t>(columns);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * columns;
  if (threadIdx.x == 0) store_float(y + (kPlanted ? static_cast<int64_t>(narrow) : row), 1.0f);
}

// Every thread's place in a two-dimensional grid of two-dimensional blocks. Planted: rows of the block as
// wide as high.
template <bool kPlanted>
FLA_KERNEL void number_threads(float* y) {
  const unsigned width = kPlanted ? blockDim.y : blockDim.x;
  const unsigned block = blockIdx.y * gridDim.x + blockIdx.x, thread = threadIdx.y * width + threadIdx.x;
  const unsigned place = block * blockDim.x * blockDim.y + thread;
  store_float(y + place, static_cast<float>(place));
}

}  // namespace fla::detail::planted
