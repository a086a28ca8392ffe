// How the causal convolutions are cut into threads: pure functions of shapes, dtypes and strides.
//
// Nothing depends on the device: the partial sums of the parameter gradients have one row per block, and must be
// the same on every GPU.
#pragma once

#include <cstdint>

#include "common/alignment.h"
#include "common/walk_plan.h"
#include "fla/conv.h"

namespace fla::detail {

struct ConvExtent {
  int64_t b = 1, t = 0, d = 0;  // rows, tokens of a row, channels
  int64_t w = 0;                // taps
  int64_t n = 0, s = 0;         // sequences, state slots (0 where no state is given)
};

inline const Tensor& first_present(const Tensor& a, const Tensor& b) { return a ? a : b; }

inline ConvExtent conv_extent(const Tensor& x, const Tensor& weight, const Tensor& cu_seqlens,
                              const Tensor& state) {
  ConvExtent e;
  if (x.rank < 2) return e;
  e.b = x.rank > 2 ? x.size[0] : 1;
  e.t = x.size[x.rank - 2];
  e.d = x.size[x.rank - 1];
  e.w = weight.rank > 0 ? weight.size[weight.rank - 1] : 0;
  e.n = cu_seqlens ? cu_seqlens.size[0] - 1 : e.b;
  e.s = state.rank > 0 ? state.size[state.rank - 1] : 0;
  return e;
}

inline ConvExtent extent_of(const CausalConv1dForward& a) {
  return conv_extent(a.x, a.weight, a.cu_seqlens, first_present(a.initial_state, a.final_state));
}
inline ConvExtent extent_of(const CausalConv1dBackward& a) {
  const Tensor& gradient = first_present(a.dfinal_state, a.dinitial_state);
  return conv_extent(a.x, a.weight, a.cu_seqlens, first_present(a.initial_state, gradient));
}
inline ConvExtent extent_of(const CausalConv1dStates& a) {
  return conv_extent(a.x, {}, a.cu_seqlens, a.final_state);
}

// Whether the filters lie one behind the other, on a 16-byte boundary: then the taps of a thread's channels
// are one contiguous piece.
inline bool filter_is_packed(const Tensor& weight, const Tensor& bias, int64_t elements) {
  const bool dense = weight.size[0] == 1 || weight.stride[0] == weight.size[1];
  return dense && reinterpret_cast<uintptr_t>(weight.data) % 16 == 0 && channels_allow(bias, elements);
}

inline constexpr int64_t kFewestTaps = 2, kMostTaps = 4;  // taps that a register window exists for

inline WalkPlan plan_walks(const ConvExtent& e, int vector, int threads, int most_lanes, int64_t steps) {
  return plan_walks(e.b, e.t, e.d, vector, threads, most_lanes, steps);
}

// Forward: 8 tokens whose loads are all in flight before the first is used, 64 threads. Longer walks through a ring, as
// backward takes them, lost 2 to 10 % on an H200 (dense) or won 3 % (packed); 16 tokens lost 7 %, 4 a third.
inline constexpr int kForwardThreads = 64, kForwardLanes = 32, kForwardSteps = 8;

inline WalkPlan plan(const CausalConv1dForward& a) {
  const ConvExtent e = extent_of(a);
  const int vector = static_cast<int>(16 / size_of(a.x.dtype));
  WalkPlan p = plan_walks(e, vector, kForwardThreads, kForwardLanes, kForwardSteps);
  const bool same_types = !a.residual || a.residual.dtype == a.x.dtype;
  p.vectors &= e.w >= kFewestTaps && e.w <= kMostTaps && same_types && channels_allow(a.x, vector) &&
                channels_allow(a.residual, vector) && channels_allow(a.y, vector) &&
                filter_is_packed(a.weight, a.bias, vector);
  return p;
}

// Backward: 4 channels per thread (8 need 223 registers and lose 11 %), 128 threads. Long segments keep the
// partial sums and the tokens that are read twice under 2 % of the traffic each (128 tokens: 4 % slower).
inline constexpr int kBackwardVector = 4, kBackwardThreads = 128, kBackwardLanes = 32, kBackwardBlocks = 4;
inline constexpr int kBackwardBatch = 4, kBackwardBatches = 2;
inline constexpr int64_t kLongestBackward = 256, kShortestBackward = 16;

// Small problems are cut into shorter segments than large ones, so that there are threads to hide the latency with: as
// many as a large GPU holds at once (512 on each of 128 multiprocessors).
inline constexpr int64_t kThreadsWanted = 65536;

inline int64_t backward_steps(const ConvExtent& e) {
  int64_t steps = kLongestBackward;
  while (steps > kShortestBackward && e.b * divide_up(e.t, steps) * (e.d / kBackwardVector) < kThreadsWanted) steps /= 2;
  return steps;
}

// Without the window: a block of 32 channels x 8 lanes takes tiles of 64 tokens.
inline constexpr int kTileChannels = 32, kTileLanes = 8, kTileTokens = 64;

inline WalkPlan plan_tiles(const ConvExtent& e) {
  WalkPlan p;
  p.steps = kTileTokens;
  p.segments = divide_up(e.t, p.steps);
  p.groups = e.b * p.segments;
  p.channel_blocks = divide_up(e.d, kTileChannels);
  return p;
}

// Whether the windowed kernel can read or write this tensor.
inline bool fits_window(const CausalConv1dBackward& a, const Tensor& t) {
  return !t || (t.dtype == a.x.dtype && channels_allow(t, kBackwardVector));
}

// Decided by the inputs alone: which gradients are asked for must not change the bits of any.
inline WalkPlan plan(const CausalConv1dBackward& a) {
  const ConvExtent e = extent_of(a);
  WalkPlan p = plan_walks(e, kBackwardVector, kBackwardThreads, kBackwardLanes, backward_steps(e));
  p.vectors &= e.w >= kFewestTaps && e.w <= kMostTaps && fits_window(a, a.x) && fits_window(a, a.dy) &&
                filter_is_packed(a.weight, a.bias, kBackwardVector);
  return p.vectors ? p : plan_tiles(e);
}

}  // namespace fla::detail
