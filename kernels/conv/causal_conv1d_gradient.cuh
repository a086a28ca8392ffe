// g = dy act'(z) of one element, z recomputed in the forward kernels' order.
#pragma once

#include "conv/causal_conv1d_backward.cuh"

namespace fla::detail {

FLA_DEVICE float gradient_at(const ConvBackwardArgs& a, const Sequence& sequence, int64_t b, int64_t t, int64_t d) {
  const float dy = a.dy.read(b, t, d);
  return a.silu ? dy * activation_slope(fir_at(a.signal, a.filter, sequence, b, t, d), true) : dy;
}

}  // namespace fla::detail
