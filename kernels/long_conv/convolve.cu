// The convolution: transform, product, inverse, in one kernel. A block of threads makes one block of a row; the tokens of a
// row are read as often as blocks need them (once up to 8192 tokens; 2.5 times at 32768) and transformed again: a transform
// costs an SM what reading its spectrum from memory would, and nothing is stored between. Rows of a channel run side by
// side, so that its spectra come from L2. Per row of 8192 bf16 tokens 32 KiB are moved beside the spectra, 64 KiB, once per
// channel; library transforms move 12 times that (zero padding, fp32 spectra written and read three times).
// Bound by the transforms: about 2 x 1100 instructions of each of 512 threads, 0.2 ms at 8 x 8192 x 768 on an H200.
#include "common/math.cuh"
#include "long_conv/block_signal.cuh"

namespace fla::detail {
namespace {

constexpr float kHalfRoot = 0.707106781f, kInverseRootTwoPi = 0.398942280f;

FLA_KERNEL void FLA_BOUNDS(512, 2)
    transform_taps_kernel(FLA_PARAMETERS LongConvTaps taps, FLA_PARAMETERS LongConvPlan plan, Complex* spectra) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int lags = plan.lags();
  const int64_t channel = blockIdx.x / lags;
  const int64_t origin = static_cast<int64_t>(static_cast<int>(blockIdx.x % lags) + plan.first_lag) * plan.points;
  Complex x[kFftPoints];
  FLA_UNROLL
  for (int j = 0; j < kFftPoints; ++j) {
    const int64_t p = j * threads + thread;  // x^-m = i x^(P - m)
    x[j] = {taps.tap(channel, origin + p), p > 0 ? taps.tap(channel, origin + p - plan.points) : 0.0f};
  }
  const BlockFft fft(shared_memory<Complex>(), thread, threads);
  fft.forward(x);
  const float scale = 1.0f / static_cast<float>(plan.points);  // of the inverse to come
  FLA_UNROLL
  for (int i = 0; i < kFftPoints; ++i) x[i] = {x[i].re * scale, x[i].im * scale};
  store_spectrum(spectra + static_cast<int64_t>(blockIdx.x) * plan.points, thread, threads, x);
}

FLA_KERNEL void FLA_BOUNDS(512, 2) convolve_kernel(FLA_PARAMETERS LongConvolution a) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const unsigned blocks = static_cast<unsigned>(a.plan.blocks), rows = static_cast<unsigned>(a.sizes.B * a.sizes.V);
  const unsigned line = blockIdx.x / blocks, channel = line / rows, row = line - channel * rows;
  const int block = static_cast<int>(blockIdx.x - line * blocks);
  Complex* shared = shared_memory<Complex>();
  Complex* sum = shared + BlockFft::shared_points(a.plan.points);
  const BlockFft fft(shared, thread, threads);
  const int64_t in_row = row_offset(a.in, channel, row, a.sizes.V);

  // Lag blocks whose other end is a block of the row.
  const int before = block, after = a.plan.blocks - 1 - block;
  const int least = a.adjoint ? -before : -after, most = a.adjoint ? after : before;
  const int first = a.plan.first_lag > least ? a.plan.first_lag : least;
  const int last = a.plan.last_lag < most ? a.plan.last_lag : most;
  Complex x[kFftPoints];
  FLA_NO_UNROLL
  for (int lag = first; lag <= last; ++lag) {
    const int64_t from = a.adjoint ? block + lag : block - lag;
    transform_block(fft, a.in, in_row, from * a.plan.points + thread, threads, a.sizes.L, x);
    Complex taps[kFftPoints];
    const int64_t spectrum = static_cast<int64_t>(channel) * a.plan.lags() + (lag - a.plan.first_lag);
    load_spectrum(a.spectra + spectrum * a.plan.points, thread, threads, taps);
    FLA_UNROLL
    for (int i = 0; i < kFftPoints; ++i) {
      x[i] = x[i] * (a.adjoint ? conjugate(taps[i]) : taps[i]);
      Complex& partial = sum[i * threads + thread];
      if (lag > first) x[i] = partial + x[i];
      if (lag < last) partial = x[i];
    }
  }
  fft.inverse(x);

  const int64_t token = static_cast<int64_t>(block) * a.plan.points + thread;
  float v[kFftPoints];
  load_block(a.in, in_row, token, threads, a.sizes.L, v);
  const float skip = a.skip ? load_float(a.skip, channel) : 1.0f;
  const float mask = a.mask ? load_float(a.mask, static_cast<int64_t>(row) * a.mask_stride + channel) : 1.0f;
  FLA_UNROLL
  for (int j = 0; j < kFftPoints; ++j) v[j] = fmaf(skip, v[j], x[j].re);
  if (a.upstream) {
    float dy[kFftPoints];
    load_block(a.upstream, row_offset(a.upstream, channel, row, a.sizes.V), token, threads, a.sizes.L, dy);
    FLA_UNROLL
    for (int j = 0; j < kFftPoints; ++j) {
      const float density = kInverseRootTwoPi * math::exp(-0.5f * v[j] * v[j]);
      v[j] = dy[j] * fmaf(v[j], density, fmaf(0.5f, math::erf(v[j] * kHalfRoot), 0.5f));
    }
  } else if (a.gelu) {
    FLA_UNROLL
    for (int j = 0; j < kFftPoints; ++j) v[j] *= fmaf(0.5f, math::erf(v[j] * kHalfRoot), 0.5f);
  }
  FLA_UNROLL
  for (int j = 0; j < kFftPoints; ++j) v[j] *= mask;
  store_block(a.out, row_offset(a.out, channel, row, a.sizes.V), token, threads, a.sizes.L, v);
}

}  // namespace

size_t spectra_bytes(const LongConvSizes& sizes, const LongConvPlan& plan) {
  return static_cast<size_t>(sizes.D * plan.lags() * plan.points) * sizeof(Complex);
}

Status transform_taps(const LongConvTaps& taps, const LongConvSizes& sizes, const LongConvPlan& plan, Complex* spectra,
                      Stream stream) {
  return launch<&transform_taps_kernel>(
      {.grid = sizes.D * plan.lags(), .block = plan.threads(),
       .shared_bytes = static_cast<size_t>(BlockFft::shared_points(plan.points)) * sizeof(Complex), .stream = stream},
      taps, plan, spectra);
}

Status convolve(const LongConvolution& a, Stream stream) {
  const int64_t sums = a.plan.blocks > 1 ? a.plan.points : 0;
  return launch<&convolve_kernel>(
      {.grid = a.sizes.D * a.sizes.B * a.sizes.V * a.plan.blocks, .block = a.plan.threads(),
       .shared_bytes = static_cast<size_t>(BlockFft::shared_points(a.plan.points) + sums) * sizeof(Complex),
       .stream = stream},
      a);
}

}  // namespace fla::detail
