// Expansions of rows of 16 elements, backward: a thread takes a row, keeps it and its gradient in registers, and reads every
// gradient of a pair once, for both its elements: one shared load and two FMAs, with everything else known when compiled.
// A block has its 35 to 39 KB of gradients in flight at once, and an SM four of them.
#include "feature_map/expansion_backward.cuh"

namespace fla::detail {
namespace {

constexpr int kWidth = kNarrowWidth;
constexpr int kPairs = kWidth * (kWidth - 1) / 2;

// The gradients of a row in order. Where rows are whole vectors, 16 bytes at a time.
template <class T, int kColumns>
struct Gradients {
  const T* row;
  float ahead[8] = {};

  FLA_DEVICE float at(int column) {
    if constexpr (kColumns % 8 == 0) {
      if (column % 8 == 0) load_floats(row + column, ahead);
      return ahead[column % 8];
    } else {
      return load_float(row + column);
    }
  }
};

// What rows of a rebased map were made of. x comes as t goes.
struct NarrowRow {
  float t[kWidth], xhat[kWidth];
  float rstd = 1;

  FLA_DEVICE void prepare(const ExpansionTile& a, const float* gamma, const float* beta) {
    float mean = 0;
    if (a.normalize) {
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) mean += t[i];
      mean *= 1.0f / kWidth;
      float squares = 0;
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) squares = fmaf(t[i] - mean, t[i] - mean, squares);
      rstd = math::rsqrt(squares * (1.0f / kWidth) + a.eps);
    }
    FLA_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      xhat[i] = (t[i] - mean) * rstd;
      t[i] = fmaf(xhat[i], gamma[i], beta[i]) * a.scale;
    }
  }
  // dx from dv.
  FLA_DEVICE void finish(const ExpansionTile& a, const float* gamma, float (&d)[kWidth]) const {
    float mean = 0, slope = 0;
    FLA_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      d[i] *= gamma[i];
      mean += d[i];
      slope = fmaf(d[i], xhat[i], slope);
    }
    if (!a.normalize) return;
    mean *= 1.0f / kWidth;
    slope *= 1.0f / kWidth;
    FLA_UNROLL
    for (int i = 0; i < kWidth; ++i) d[i] = (d[i] - mean - xhat[i] * slope) * rstd;
  }
};

// kAffine: rebased; else taylor, whose rows have no parameters.
template <class T, bool kAffine>
FLA_KERNEL void FLA_BOUNDS(kNarrowRows, kNarrowBlocksPerMultiprocessor)
    narrow_backward_kernel(FLA_PARAMETERS ExpandBackwardArgs a) {
  constexpr int kLinear = kAffine ? 0 : 1, kSquares = kAffine ? 0 : 1 + kWidth, kTriangle = kSquares + kWidth;
  constexpr int kColumns = kTriangle + kPairs;
  wait_for_predecessor();
  T* staged = shared_memory<T>();
  float* parameters = shared_memory<float>() + a.sums_at;  // gamma, beta; then the warps' sums
  const int thread = static_cast<int>(threadIdx.x);
  if (kAffine && thread < kWidth) {
    parameters[thread] = a.tile.gamma ? load_float(a.tile.gamma, thread) : 1.0f;
    parameters[kWidth + thread] = a.tile.beta ? load_float(a.tile.beta, thread) : 0.0f;
  }
  float sums[2 * kWidth] = {};
  for (int64_t tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const int64_t first_row = tile * kNarrowRows, row = first_row + thread, left = a.tile.rows - first_row;
    stage_gradients(a, first_row, left < kNarrowRows ? static_cast<int>(left) : kNarrowRows, staged);
    const bool live = thread < left;
    NarrowRow r;
    FLA_UNROLL
    for (int i = 0; i < kWidth; i += 8) {
      float x[8] = {};
      const T* from = static_cast<const T*>(a.tile.x.data) + row * a.tile.x_stride + i;
      if (live && a.tile.aligned) load_floats(from, x);
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) r.t[i + e] = live && !a.tile.aligned ? load_float(from + e) : x[e];
    }
    async_wait<0>();
    block_barrier();
    if (live) {
      if constexpr (kAffine) {
        r.prepare(a.tile, parameters, parameters + kWidth);
      } else {
        FLA_UNROLL
        for (int i = 0; i < kWidth; ++i) r.t[i] *= a.tile.scale;
      }
      Gradients<T, kColumns> gradients{staged + thread * kColumns};
      float d[kWidth];
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) d[i] = kAffine ? 0.0f : gradients.at(kLinear + i);
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) d[i] = fmaf(2.0f * kRootHalf * r.t[i], gradients.at(kSquares + i), d[i]);
      int column = kTriangle;
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) {
        FLA_UNROLL
        for (int j = i + 1; j < kWidth; ++j) {
          const float g = gradients.at(column++);
          d[i] = fmaf(g, r.t[j], d[i]);
          d[j] = fmaf(g, r.t[i], d[j]);
        }
      }
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) d[i] *= a.tile.scale;
      if constexpr (kAffine) {
        FLA_UNROLL
        for (int i = 0; i < kWidth; ++i) {
          sums[i] = fmaf(d[i], r.xhat[i], sums[i]);
          sums[kWidth + i] += d[i];
        }
        r.finish(a.tile, parameters, d);
      }
      if (a.dx && a.dx_vectors) {
        FLA_UNROLL
        for (int i = 0; i < kWidth; i += 8) {
          float part[8];
          FLA_UNROLL
          for (int e = 0; e < 8; ++e) part[e] = d[i + e];
          store_floats(static_cast<T*>(a.dx.data) + row * a.dx_stride + i, part);
        }
      } else if (a.dx) {
        FLA_UNROLL
        for (int i = 0; i < kWidth; ++i) store_float(a.dx, row * a.dx_stride + i, d[i]);
      }
    }
    block_barrier();
  }
  if constexpr (kAffine) {
    if (!a.dgamma && !a.dbeta) return;
    constexpr int kWarps = kNarrowRows / kWarp;
    warp_sum(sums);
    if (thread % kWarp == 0) {
      FLA_UNROLL
      for (int i = 0; i < 2 * kWidth; ++i) parameters[thread / kWarp * 2 * kWidth + i] = sums[i];
    }
    block_barrier();
    if (thread >= 2 * kWidth) return;
    float total = parameters[thread];
    FLA_UNROLL
    for (int w = 1; w < kWarps; ++w) total += parameters[w * 2 * kWidth + thread];
    float* to = thread < kWidth ? a.dgamma : a.dbeta;
    if (to) store_float(to + static_cast<int64_t>(blockIdx.x) * kWidth + thread % kWidth, total);
  }
}

}  // namespace

Status run_narrow(const ExpandBackwardArgs& args, DType dtype, int64_t blocks, Stream stream) {
  ExpandBackwardArgs a = args;
  const bool affine = !a.tile.columns.linear;
  a.sums_at = kNarrowRows * a.columns / 2;
  const size_t words = static_cast<size_t>(a.sums_at) + kNarrowRows / kWarp * 2 * kWidth;
  const Launch shape{
      .grid = blocks, .block = kNarrowRows, .shared_bytes = 4 * words, .stream = stream, .dependent = true};
  if (dtype == DType::bf16)
    return affine ? launch<&narrow_backward_kernel<bf16, true>>(shape, a) : launch<&narrow_backward_kernel<bf16, false>>(shape, a);
  return affine ? launch<&narrow_backward_kernel<f16, true>>(shape, a) : launch<&narrow_backward_kernel<f16, false>>(shape, a);
}

}  // namespace fla::detail
