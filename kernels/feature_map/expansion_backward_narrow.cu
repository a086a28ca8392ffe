// Expansions of rows of 16 elements, backward: a thread keeps its row's gradient in registers, too, and reads every gradient of
// a pair once, for both its elements: half a shared load and two FMAs. A block has its 17 to 20 KB of gradients in flight at
// once, and an SM eight of them.
#include "feature_map/expansion_backward.cuh"

namespace fla::detail {
namespace {

constexpr int kWidth = kNarrowWidth;

template <class T, bool kAffine>
FLA_KERNEL void FLA_BOUNDS(kNarrowRows, kNarrowBlocksPerMultiprocessor)
    narrow_backward_kernel(FLA_PARAMETERS ExpandBackwardArgs a) {
  using Columns = NarrowColumns<kAffine>;
  wait_for_predecessor();
  T* staged = shared_memory<T>();
  float* parameters = shared_memory<float>() + a.sums_at;  // gamma, beta; then the warps' sums
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (kAffine) stage_parameters(a.tile, parameters, parameters + kWidth);
  float sums[2 * kWidth] = {};
  for (int64_t tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const int64_t first_row = tile * kNarrowRows, row = first_row + thread, left = a.tile.rows - first_row;
    stage_gradients(a, first_row, left < kNarrowRows ? static_cast<int>(left) : kNarrowRows, staged);
    const bool live = thread < left;
    NarrowInput<T> x;
    x.fetch(a.tile, row);
    async_wait<0>();
    block_barrier();
    if (live) {
      NarrowRow r;
      r.take(x);
      if constexpr (kAffine) r.prepare(a.tile, parameters, parameters + kWidth);
      else r.scale(a.tile);
      NarrowLine<T, Columns::kCount> gradients(staged, thread);
      if constexpr (!kAffine) (void)gradients.at(0);  // of the constant
      float d[kWidth];
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) d[i] = kAffine ? 0.0f : gradients.at(Columns::kLinear + i);
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) d[i] = fmaf(2.0f * kRootHalf * r.t[i], gradients.at(Columns::kSquares + i), d[i]);
      int column = Columns::kTriangle;
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
