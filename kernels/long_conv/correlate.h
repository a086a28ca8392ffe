// The gradient of the taps.
#pragma once

#include "long_conv/long_conv.h"

namespace fla::detail {

// What the lags of dK are made of: correlations q(x) u(1/x) of blocks that are d blocks apart, summed over rows and blocks,
// modulo x^P + i. Of point r the real part belongs to lag d P + r, the imaginary part to lag (d - 1) P + r.
struct LongConvCorrelation {
  LongConvSignal q, u;
  AnyFloat mask;  // multiplies q
  int64_t mask_stride = 0;
  LongConvSizes sizes;
  LongConvPlan plan;
  Complex* out = nullptr;  // [D][lags][points]
};
Status correlate(const LongConvCorrelation&, Stream);

// dk, dk_rev and dskip, each optional, from the correlations.
struct LongConvTapGradients {
  const Complex* correlations = nullptr;
  LongConvPlan plan;
  LongConvTaps taps;  // dk and dk_rev in place of k and k_rev
  AnyFloat dskip;
};
Status store_tap_gradients(const LongConvTapGradients&, int64_t channels, Stream);

}  // namespace fla::detail
