// Expansions of rows of 16 elements, backward: a lane keeps its row's gradient in registers, too, and reads every gradient of a
// pair once, for both its elements: half a shared load and two FMAs.
#include "feature_map/expansion_backward.cuh"

namespace fla::detail {
namespace {

constexpr int kWidth = kNarrowWidth;

template <class T, bool kAffine>
FLA_KERNEL void FLA_BOUNDS((NarrowPlan<kAffine>::kThreads), (NarrowPlan<kAffine>::kBlocks))
    narrow_backward_kernel(FLA_PARAMETERS ExpandBackwardArgs a) {
  using Columns = NarrowColumns<kAffine>;
  using Plan = NarrowPlan<kAffine>;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  T* ring = shared_memory<T>() + warp * 2 * Plan::kTile;
  float* parameters = shared_memory<float>() + Plan::kTileWords;  // gamma, beta; then the warps' sums
  release_dependents();
  wait_for_predecessor();
  NarrowWalk walk(a.tile, Plan::kWarps, warp);
  const auto fetch = [&](int turn, int64_t first) {
    stage_gradients(a, first, walk.rows_from(first), ring + turn * Plan::kTile, lane, kWarp);
  };
  fetch(0, walk.first);
  NarrowInput<T> x;
  x.fetch(a.tile, walk.first + lane);
  if constexpr (kAffine) {
    stage_parameters(a.tile, parameters, parameters + kWidth);
    block_barrier();
  }
  float sums[2 * kWidth] = {};
  for (int turn = 0; walk.first < walk.end; walk.first += walk.step, turn ^= 1) {
    fetch(turn ^ 1, walk.first + walk.step);
    const int64_t row = walk.first + lane;
    async_wait<1>();
    warp_barrier();
    NarrowRow r;
    r.take(x);
    x.fetch(a.tile, row + walk.step);  // last: a wait for the row before must not hold up the copies
    if (row < walk.end) {
      if constexpr (kAffine) r.prepare(a.tile, parameters, parameters + kWidth);
      else r.scale(a.tile);
      NarrowLine<T, Columns::kCount> gradients(ring + turn * Plan::kTile, lane);
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
    warp_barrier();  // before the next rows come there
  }
  if constexpr (kAffine) {
    if (!a.dgamma && !a.dbeta) return;
    warp_sum(sums);
    block_barrier();
    if (lane == 0) {
      FLA_UNROLL
      for (int i = 0; i < 2 * kWidth; ++i) parameters[warp * 2 * kWidth + i] = sums[i];
    }
    block_barrier();
    if (thread >= 2 * kWidth) return;
    float total = parameters[thread];
    FLA_UNROLL
    for (int w = 1; w < Plan::kWarps; ++w) total += parameters[w * 2 * kWidth + thread];
    float* to = thread < kWidth ? a.dgamma : a.dbeta;
    if (to) store_float(to + static_cast<int64_t>(blockIdx.x) * kWidth + thread % kWidth, total);
  }
}

template <class T, bool kAffine>
Status launch_narrow(const ExpandBackwardArgs& a, Stream stream) {
  using Plan = NarrowPlan<kAffine>;
  return launch<&narrow_backward_kernel<T, kAffine>>({.grid = narrow_blocks<kAffine>(a.tile.rows),
                                                      .block = Plan::kThreads,
                                                      .shared_bytes = 4 * (Plan::kTileWords + Plan::kWarps * 2 * kNarrowWidth),
                                                      .stream = stream,
                                                      .dependent = true},
                                                     a);
}

}  // namespace

Status run_narrow(const ExpandBackwardArgs& a, DType dtype, Stream stream) {
  const bool affine = !a.tile.columns.linear;
  if (dtype == DType::bf16) return affine ? launch_narrow<bf16, true>(a, stream) : launch_narrow<bf16, false>(a, stream);
  return affine ? launch_narrow<f16, true>(a, stream) : launch_narrow<f16, false>(a, stream);
}

}  // namespace fla::detail
