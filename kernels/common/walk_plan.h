// How [B, T, D] tensors are cut into threads that walk along time: a pure function of shapes and strides.
//
// A thread owns `vector` neighbouring channels and walks `steps` tokens of one row; 1 << lane_bits threads lie side by
// side along the channels, and `walks` such teams, on consecutive segments, make a block.
#pragma once

#include <cstdint>

#include "common/alignment.h"

namespace fla::detail {

// Whether a channel-last operand may be read and written in vectors of `elements` channels. A parameter (rank
// 1) needs its address only.
inline bool channels_allow(const Tensor& t, int64_t elements) {
  if (!t) return true;
  const int64_t channels = t.size[t.rank - 1];
  const bool contiguous = channels == 1 || t.stride[t.rank - 1] == 1;
  return contiguous && channels % elements == 0 && rows_allow(t, elements);
}

struct WalkPlan {
  bool vectors = false;  // a thread has a whole vector of channels; otherwise one element
  int vector = 1, lane_bits = 0;
  int walks = 1;         // segments per block
  int64_t steps = 0;     // tokens per segment
  int64_t segments = 0;  // per row
  int64_t groups = 0;    // blocks along time, over all rows
  int64_t channel_blocks = 0;

  int64_t blocks() const { return groups * channel_blocks; }
  friend bool operator==(const WalkPlan&, const WalkPlan&) = default;
};

inline WalkPlan plan_walks(int64_t b, int64_t t, int64_t d, int vector, int threads,
                           int most_lanes, int64_t steps) {
  WalkPlan p;
  p.vector = vector;
  p.steps = steps;
  while ((1 << p.lane_bits) < most_lanes && (int64_t{vector} << p.lane_bits) < d) ++p.lane_bits;
  p.walks = threads >> p.lane_bits;
  p.segments = divide_up(t, steps);
  p.groups = divide_up(b * p.segments, p.walks);
  p.channel_blocks = divide_up(d, int64_t{vector} << p.lane_bits);
  // Segment and channel numbers are 32-bit in the kernels: a 64-bit division costs as much as a token.
  p.vectors = b * p.segments <= 0xffffffffLL - p.walks && d <= 0x7fffffff - (int64_t{vector} << p.lane_bits);
  return p;
}

}  // namespace fla::detail
