// g = dy act'(z) of one element, z recomputed in the forward kernels' order.
#pragma once

#include "conv/causal_conv1d_backward.cuh"

namespace fla::detail {

FLA_DEVICE float gradient_at(const ConvBackwardArgs& a, const Sequence& sequence, int64_t b, int64_t t,
                             int64_t d) {
  float g[1] = {a.dy.read(b, t, d)};
  if (a.silu == Silu::absent) return g[0];
  const float z[1] = {fir_at(a.signal, a.filter, sequence, b, t, d)};
  multiply_by_slope(z, a.silu, g);
  return g[0];
}

}  // namespace fla::detail
