// A block of a signal in registers, as transforms take it: point j threads + t of the block in x[j] of thread t.
#pragma once

#include "common/launch.h"
#include "long_conv/long_conv.h"

namespace fla::detail {

// Row `row` of the B V rows of a channel.
FLA_DEVICE int64_t row_offset(const LongConvSignal& s, int64_t channel, int64_t row, int64_t V) {
  const int64_t b = V == 1 ? row : row / V;
  return b * s.batch_stride + (row - b * V) * s.v_stride + channel * s.channel_stride;
}

// Storage types are told apart once, not for every point.
template <class F>
FLA_DEVICE void with_type(const AnyFloat& p, const F& body) {
  if (p.dtype == DType::bf16) body(static_cast<bf16*>(p.data));
  else if (p.dtype == DType::f32) body(static_cast<float*>(p.data));
  else body(static_cast<f16*>(p.data));
}

// Tokens from `first` in steps; 0 from `end` on.
FLA_DEVICE void load_block(const LongConvSignal& s, int64_t row, int64_t first, int step, int64_t end,
                           float (&x)[kFftPoints]) {
  with_type(s.data, [&](auto* data) {
    const auto* p = data + row + first * s.time_stride;
    const int64_t stride = step * s.time_stride;
    FLA_UNROLL
    for (int j = 0; j < kFftPoints; ++j) x[j] = first + j * step < end ? load_float(p + j * stride) : 0.0f;
  });
}

FLA_DEVICE void store_block(const LongConvSignal& s, int64_t row, int64_t first, int step, int64_t end,
                            const float (&x)[kFftPoints]) {
  with_type(s.data, [&](auto* data) {
    auto* p = data + row + first * s.time_stride;
    const int64_t stride = step * s.time_stride;
    FLA_UNROLL
    for (int j = 0; j < kFftPoints; ++j)
      if (first + j * step < end) store_float(p + j * stride, x[j]);
  });
}

FLA_DEVICE void load_spectrum(const Complex* p, int thread, int threads, Complex (&x)[kFftPoints]) {
  FLA_UNROLL
  for (int i = 0; i < kFftPoints; ++i) {
    float pair[2];
    load_floats(&p[i * threads + thread].re, pair);
    x[i] = {pair[0], pair[1]};
  }
}
FLA_DEVICE void store_spectrum(Complex* p, int thread, int threads, const Complex (&x)[kFftPoints]) {
  FLA_UNROLL
  for (int i = 0; i < kFftPoints; ++i) {
    const float pair[2] = {x[i].re, x[i].im};
    store_floats(&p[i * threads + thread].re, pair);
  }
}

FLA_DEVICE void transform_block(const BlockFft& fft, const LongConvSignal& s, int64_t row, int64_t first, int step,
                                int64_t end, Complex (&x)[kFftPoints]) {
  float signal[kFftPoints];
  load_block(s, row, first, step, end, signal);
  FLA_UNROLL
  for (int j = 0; j < kFftPoints; ++j) x[j] = {signal[j], 0.0f};
  fft.forward(x);
}

}  // namespace fla::detail
