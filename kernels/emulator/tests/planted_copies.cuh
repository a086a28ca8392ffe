// A ring of two stages filled by bulk copies, right as it stands and with one fault at a time.
#pragma once

#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/vector.cuh"
#include "common/warp.cuh"

namespace fla::detail::planted {

enum class CopyFault {
  none,
  no_wait,           // the stage is read before its bytes have come
  wrong_parity,      // the wait is for the phase before
  refill_too_early,  // no barrier between the second read of a stage and its refill
  too_few_bytes,     // the barrier expects more than the copies bring
  odd_size,
  misaligned_source,
  outside_shared,
  no_init,
  init_not_awaited,  // no barrier between initialisation and use by others
  armed_twice,
  no_commit,    // harmless on sm_90, a deadlock elsewhere
  overlapping,  // both stages in the same place
  left_behind,  // the block ends with a copy under way
};

inline constexpr int kRowBytes = 512, kRowFloats = kRowBytes / 4, kStages = 2, kCopyThreads = 128;

struct RingOfTwo {
  unsigned char stage[kStages][kRowBytes];
  TransactionBarrier barrier[kStages];
};

template <CopyFault kFault>
FLA_DEVICE void fetch_row(RingOfTwo* ring, const float* x, int row) {
  const int s = row % kStages;
  const uint32_t bytes = kFault == CopyFault::odd_size ? kRowBytes - 8 : kRowBytes;
  const float* from =
      x + static_cast<int64_t>(row) * kRowFloats + (kFault == CopyFault::misaligned_source ? 1 : 0);
  unsigned char* to = ring->stage[kFault == CopyFault::overlapping ? 0 : s];
  if (kFault == CopyFault::outside_shared) to = reinterpret_cast<unsigned char*>(ring + 1) - 16;
  barrier_expect(&ring->barrier[s], kFault == CopyFault::too_few_bytes ? bytes + 16 : bytes);
  if (kFault == CopyFault::armed_twice) barrier_expect(&ring->barrier[s], bytes);
  bulk_load(to, from, bytes, &ring->barrier[s]);
  if (kFault != CopyFault::no_commit) bulk_commit(&ring->barrier[s]);
}

// y[row] = 2 x[row], rows through the ring, each read twice as a row whose sum is needed first.
template <CopyFault kFault>
FLA_KERNEL void through_ring(const float* x, float* y, int rows) {
  auto* ring = shared_memory<RingOfTwo>();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0 && kFault != CopyFault::no_init)
    for (int s = 0; s < kStages; ++s) barrier_init(&ring->barrier[s]);
  if (kFault != CopyFault::init_not_awaited) block_barrier();
  const int wanted = kFault == CopyFault::left_behind ? rows + 1 : rows;
  if (thread == 0)
    for (int row = 0; row < kStages && row < wanted; ++row) fetch_row<kFault>(ring, x, row);
  for (int row = 0; row < rows; ++row) {
    const int s = row % kStages;
    const uint32_t parity = static_cast<uint32_t>(row / kStages) & 1;
    const uint32_t waited = kFault == CopyFault::wrong_parity ? parity ^ 1 : parity;
    if (kFault != CopyFault::no_wait) barrier_wait(&ring->barrier[s], waited);
    const float* held = reinterpret_cast<const float*>(ring->stage[s]) + thread;
    const float first = load_float(held);
    block_barrier();
    const bool refills = thread == 0 && row + kStages < wanted;
    if (kFault == CopyFault::refill_too_early && refills) fetch_row<kFault>(ring, x, row + kStages);
    const float second = load_float(held);
    store_float(y + static_cast<int64_t>(row) * kRowFloats + thread, first + second);
    block_barrier();
    if (kFault != CopyFault::refill_too_early && refills) fetch_row<kFault>(ring, x, row + kStages);
  }
}

// A thread's own ring of two slots, filled by asynchronous copies.
enum class AsyncFault {
  none,
  no_wait,
  group_too_late,  // the wait leaves the group under way that is read next
  misaligned_source,
  outside_shared,
  refill_too_early,  // into the slot of a copy under way
  left_behind,
};

inline constexpr int kAsyncThreads = 64, kAsyncRows = 5;

template <AsyncFault kFault>
FLA_DEVICE void fetch_pair(const float* x, int row) {
  auto* slots = shared_memory<float2>();
  const int slot = kFault == AsyncFault::refill_too_early ? 0 : row % 2, thread = static_cast<int>(threadIdx.x);
  const int64_t from = static_cast<int64_t>(row) * kAsyncThreads * 2 + thread * 2;
  float2* to = slots + slot * kAsyncThreads + thread;
  if (kFault == AsyncFault::outside_shared) to += 2 * kAsyncThreads;
  if (row < kAsyncRows) async_copy<8>(to, x + from + (kFault == AsyncFault::misaligned_source ? 1 : 0));
  async_commit();
}

// y = 2 x, a pair of floats per thread and row.
template <AsyncFault kFault>
FLA_KERNEL void through_own_ring(const float* x, float* y) {
  const auto* slots = shared_memory<float2>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int row = 0; row < 2; ++row) fetch_pair<kFault>(x, row);
  const int rows = kFault == AsyncFault::left_behind ? kAsyncRows - 2 : kAsyncRows;
  for (int row = 0; row < rows; ++row) {
    if (kFault == AsyncFault::group_too_late) async_wait<2>();
    else if (kFault != AsyncFault::no_wait) async_wait<1>();
    const float* pair = reinterpret_cast<const float*>(slots + row % 2 * kAsyncThreads + thread);
    float* out = y + (static_cast<int64_t>(row) * kAsyncThreads + thread) * 2;
    for (int e = 0; e < 2; ++e) store_float(out + e, 2 * load_float(pair + e));
    fetch_pair<kFault>(x, row + 2);
  }
}

// A warp's ring of two slots, emptied by bulk stores.
enum class StoreFault {
  none,
  no_wait,  // before a slot is written again
  misaligned_target,
  outside_shared,
  left_behind,
};

// y = 2 x, a float per thread and row.
template <StoreFault kFault>
FLA_KERNEL void out_of_ring(const float* x, float* y) {
  float* slots = shared_memory<float>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int row = 0; row < kAsyncRows; ++row) {
    float* slot = slots + row % 2 * kWarp;
    if (kFault != StoreFault::no_wait && lane == 0) bulk_stores_wait<1>();
    warp_barrier();
    slot[lane] = 2 * load_float(x + row * kWarp + lane);
    publish_to_async();
    warp_barrier();
    if (lane != 0) continue;
    bulk_store(y + row * kWarp + (kFault == StoreFault::misaligned_target ? 1 : 0),
               slot + (kFault == StoreFault::outside_shared ? 2 * kWarp : 0), kWarp * sizeof(float));
  }
  if (kFault != StoreFault::left_behind && lane == 0) bulk_stores_wait<0>();
}

}  // namespace fla::detail::planted
