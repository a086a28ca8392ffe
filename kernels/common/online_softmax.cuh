// The running maximum and sum of exponentials of a row, base 2, and their merge. One monoid serves lanes, warps, blocks,
// vocabulary shards and ranks.
#pragma once

#include "common/gpu.h"
#include "common/math.cuh"
#include "common/warp.cuh"

namespace fla::detail {

// sum = Σ 2^(t - max) over the t = z log2(e) seen so far; max = -inf and sum = 0 before the first.
struct SoftmaxState {
  float max = -INFINITY;
  float sum = 0.0f;
};

// Never evaluates (-inf) - (-inf): an empty side leaves the other as it is. A NaN on either side stays.
FLA_DEVICE SoftmaxState merge(const SoftmaxState& a, const SoftmaxState& b) {
  SoftmaxState r;
  r.max = math::max_with_nan(a.max, b.max);
  const float base = r.max == -INFINITY ? 0.0f : r.max;
  r.sum = a.sum * math::exp2(a.max - base) + b.sum * math::exp2(b.max - base);
  return r;
}

FLA_DEVICE SoftmaxState warp_merge(SoftmaxState s) {
  FLA_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    SoftmaxState other;
    other.max = shuffle_xor(s.max, step);
    other.sum = shuffle_xor(s.sum, step);
    s = merge(s, other);
  }
  return s;
}

// Over the whole block; `slots` holds one state per warp. One block barrier; every thread gets the result, merged in
// the order of warps.
FLA_DEVICE SoftmaxState block_merge(SoftmaxState s, SoftmaxState* slots) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  s = warp_merge(s);
  if (thread % kWarp == 0) slots[thread / kWarp] = s;
  block_barrier();
  const int lane = thread % kWarp;
  SoftmaxState mine = lane < warps ? slots[lane] : SoftmaxState{};
  return warp_merge(mine);
}

}  // namespace fla::detail
