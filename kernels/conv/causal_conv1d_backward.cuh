// The arguments of the backward kernels and the two ways to walk: with the window in registers, or in tiles.
#pragma once

#include "conv/causal_window.cuh"
#include "conv/conv_plan.h"
#include "fla/status.h"

namespace fla::detail {

struct ConvBackwardArgs {
  Signal signal;
  FilterOperand filter;
  TokenOperand dy, dx, dresidual;
  StateOperand dfinal_state, dinitial_state;
  float* weight_partials = nullptr;  // [groups][D * W], absent when dweight is not asked for
  float* bias_partials = nullptr;    // [groups][D]
  int64_t rows = 0, channels = 0;
  uint32_t segments = 0, channel_blocks = 0;
  int32_t steps = 0, lane_bits = 0;
  Silu silu = Silu::absent;
};

// W of 2 to 4, vectors of kBackwardVector channels, dx, dy and dresidual in x's dtype.
Status causal_conv1d_backward_windowed(const ConvBackwardArgs& a, const WalkPlan& p, DType dtype,
                                       Stream stream);

// Any W, any strides, any dtypes.
Status causal_conv1d_backward_tiles(const ConvBackwardArgs& a, const WalkPlan& p, Stream stream);

}  // namespace fla::detail
