// The gradient of the taps: for a channel and a lag block, both signals of every row are transformed, and products summed
// in registers, rows in order: deterministic, nothing stored between. One inverse at the end. The spectrum of u waits in
// shared memory for that of q: 132 KiB of 8192 points, so one block of 512 threads to an SM.
#include "common/alignment.h"
#include "long_conv/block_signal.cuh"
#include "long_conv/correlate.h"

namespace fla::detail {
namespace {

constexpr int kGradientThreads = 256;

FLA_KERNEL void FLA_BOUNDS(512, 1) correlate_kernel(FLA_PARAMETERS LongConvCorrelation a) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const unsigned lags = static_cast<unsigned>(a.plan.lags()), channel = blockIdx.x / lags;
  const int lag = static_cast<int>(blockIdx.x - channel * lags) + a.plan.first_lag;
  Complex* shared = shared_memory<Complex>();
  Complex* spectrum = shared + BlockFft::shared_points(a.plan.points);
  const BlockFft fft(shared, thread, threads);
  const int first = lag > 0 ? lag : 0, last = a.plan.blocks + (lag < 0 ? lag : 0);  // of q

  Complex sum[kFftPoints] = {};
  FLA_NO_UNROLL
  for (int64_t row = 0; row < a.sizes.B * a.sizes.V; ++row) {
    const float mask = a.mask ? load_float(a.mask, row * a.mask_stride + channel) : 1.0f;
    const float scale = mask / static_cast<float>(a.plan.points);
    const int64_t u_row = row_offset(a.u, channel, row, a.sizes.V), q_row = row_offset(a.q, channel, row, a.sizes.V);
    FLA_NO_UNROLL
    for (int block = first; block < last; ++block) {
      Complex x[kFftPoints];
      transform_block(fft, a.u, u_row, static_cast<int64_t>(block - lag) * a.plan.points + thread, threads, a.sizes.L, x);
      FLA_UNROLL
      for (int i = 0; i < kFftPoints; ++i) spectrum[i * threads + thread] = {x[i].re * scale, x[i].im * -scale};
      transform_block(fft, a.q, q_row, static_cast<int64_t>(block) * a.plan.points + thread, threads, a.sizes.L, x);
      FLA_UNROLL
      for (int i = 0; i < kFftPoints; ++i) sum[i] = sum[i] + x[i] * spectrum[i * threads + thread];
    }
  }
  fft.inverse(sum);
  store_spectrum(a.out + static_cast<int64_t>(blockIdx.x) * a.plan.points, thread, threads, sum);
}

FLA_DEVICE Complex correlation(const LongConvTapGradients& a, int64_t channel, int64_t lag, int64_t point) {
  if (lag < a.plan.first_lag || lag > a.plan.last_lag) return {0.0f, 0.0f};
  const int64_t block = channel * a.plan.lags() + lag - a.plan.first_lag;
  float pair[2];
  load_floats(&a.correlations[block * a.plan.points + point].re, pair);
  return {pair[0], pair[1]};
}

// dK(j), |j| < L.
FLA_DEVICE float lag_gradient(const LongConvTapGradients& a, int64_t channel, int64_t j) {
  const int64_t point = j & (a.plan.points - 1), lag = (j - point) / a.plan.points;
  const float within = correlation(a, channel, lag, point).re;
  return point > 0 ? within + correlation(a, channel, lag + 1, point).im : within;
}

// The lag that tap `index` of k is for (of k_rev: its negative); L where there is none.
FLA_DEVICE int64_t lag_of(const LongConvTaps& taps, int64_t index) {
  const int64_t L = taps.length;
  if (index < L) return index;
  return taps.circular && index > L && index < 2 * L ? index - 2 * L : L;
}

FLA_KERNEL void FLA_BOUNDS(kGradientThreads, 4) tap_gradients_kernel(FLA_PARAMETERS LongConvTapGradients a, int64_t most) {
  const int64_t blocks = (most + kGradientThreads - 1) / kGradientThreads, channel = blockIdx.x / blocks;
  const int64_t index = (blockIdx.x - channel * blocks) * kGradientThreads + threadIdx.x;
  const LongConvTaps& taps = a.taps;
  const int64_t lag = lag_of(taps, index);
  const bool none = lag == taps.length;
  if (taps.k && index < taps.k_taps)
    store_float(taps.k, channel * taps.k_stride + index, none ? 0.0f : lag_gradient(a, channel, lag));
  if (taps.k_rev && index < taps.k_rev_taps)
    store_float(taps.k_rev, channel * taps.k_rev_stride + index, none ? 0.0f : lag_gradient(a, channel, -lag));
  if (a.dskip && index == 0) store_float(a.dskip, channel, lag_gradient(a, channel, 0));
}

}  // namespace

Status correlate(const LongConvCorrelation& a, Stream stream) {
  return launch<&correlate_kernel>(
      {.grid = a.sizes.D * a.plan.lags(), .block = a.plan.threads(),
       .shared_bytes = static_cast<size_t>(BlockFft::shared_points(a.plan.points) + a.plan.points) * sizeof(Complex),
       .stream = stream},
      a);
}

Status store_tap_gradients(const LongConvTapGradients& a, int64_t channels, Stream stream) {
  int64_t most = 1;
  if (a.taps.k && a.taps.k_taps > most) most = a.taps.k_taps;
  if (a.taps.k_rev && a.taps.k_rev_taps > most) most = a.taps.k_rev_taps;
  return launch<&tap_gradients_kernel>(
      {.grid = channels * divide_up(most, kGradientThreads), .block = kGradientThreads, .stream = stream}, a, most);
}

}  // namespace fla::detail
