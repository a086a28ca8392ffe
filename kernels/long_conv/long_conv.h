// What the kernels of the long convolution share: how a call is cut into transforms, and the parts of its workspace.
#pragma once

#include "common/fft.cuh"
#include "common/vector.cuh"
#include "common/workspace.h"
#include "fla/long_conv.h"

namespace fla::detail {

// Blocks of P tokens, P the points of a transform. Block j of c is the sum over lag blocks d of block j - d of u, convolved
// with the taps K(d P - P + 1 .. d P + P - 1): a product of two spectra each, and the sum is one of spectra too.
struct LongConvPlan {
  int points = 0, blocks = 0;       // P, and how many hold the L tokens
  int first_lag = 0, last_lag = 0;  // lag blocks that meet taps

  FLA_HOST_DEVICE int lags() const { return last_lag - first_lag + 1; }
  int threads() const { return points / kFftPoints; }
};

// Tap K(j), |j| < L, is k[j] + k_rev[-j], where these exist; circular filters reach around.
struct LongConvTaps {
  AnyFloat k, k_rev;
  int64_t k_stride = 0, k_rev_stride = 0;  // of channels
  int64_t k_taps = 0, k_rev_taps = 0;
  int64_t length = 0;
  bool circular = false;

  // Where in k, or with -j in k_rev; at least 2 L: nowhere.
  FLA_HOST_DEVICE int64_t index(int64_t j) const { return j >= 0 ? j : circular ? 2 * length + j : INT64_MAX; }
  FLA_DEVICE float tap(int64_t channel, int64_t j) const {
    if (j <= -length || j >= length) return 0.0f;
    float sum = 0.0f;
    if (index(j) < k_taps) sum += load_float(k, channel * k_stride + index(j));
    if (index(-j) < k_rev_taps) sum += load_float(k_rev, channel * k_rev_stride + index(-j));
    return sum;
  }
};

// A tensor of shape u: element (b, channel, v, t).
struct LongConvSignal {
  AnyFloat data;
  int64_t batch_stride = 0, channel_stride = 0, v_stride = 0, time_stride = 0;
  FLA_HOST_DEVICE explicit operator bool() const { return static_cast<bool>(data); }
};

// The sizes of a call.
struct LongConvSizes {
  int64_t B = 0, L = 0, D = 0, V = 1;
  bool empty() const { return B == 0 || L == 0 || D == 0 || V == 0; }
};

LongConvSizes sizes_of(LongConvLayout, const Tensor& u);
LongConvSignal signal_of(LongConvLayout, const Tensor& t);
LongConvPlan plan_of(const LongConvSizes&, const LongConvTaps&);

template <class A>
LongConvTaps taps_of(const A& a, int64_t length) {
  return {.k = any_float(a.k), .k_rev = any_float(a.k_rev), .k_stride = a.k.stride[0],
          .k_rev_stride = a.k_rev ? a.k_rev.stride[0] : 0, .k_taps = a.k.size[1],
          .k_rev_taps = a.k_rev ? a.k_rev.size[1] : 0, .length = length,
          .circular = a.wrap == LongConvWrap::circular2L};
}

// Channel-last tensors are transposed into the workspace and back, by 64 x 64 tiles: 4 bytes an element of bf16 each way
// (8 x 8192 x 768: 48 us at the H200's copy rate), where reading columns would cost 8 sectors for each that is needed.
bool needs_staging(LongConvLayout, const Tensor&);
// [B, D, L] in the workspace in place of a tensor that needs it.
Tensor stage_of(WorkspaceParts&, LongConvLayout, const Tensor&);
Status stage_in(const Tensor& from, const Tensor& stage, Stream);
Status stage_out(const Tensor& stage, const Tensor& to, Stream);

// Spectra of all taps: [D][lags][points / threads][threads].
size_t spectra_bytes(const LongConvSizes&, const LongConvPlan&);
Status transform_taps(const LongConvTaps&, const LongConvSizes&, const LongConvPlan&, Complex* spectra, Stream);

// out = mask f(c + skip in), c the convolution of `in` with the taps, or with `adjoint` their correlation. f is the identity,
// GELU, or, where `upstream` is given, upstream times GELU's slope.
struct LongConvolution {
  LongConvSignal in, out, upstream;
  const Complex* spectra = nullptr;
  AnyFloat skip, mask;
  int64_t mask_stride = 0;
  LongConvSizes sizes;
  LongConvPlan plan;
  bool adjoint = false, gelu = false;
};
Status convolve(const LongConvolution&, Stream);

}  // namespace fla::detail
