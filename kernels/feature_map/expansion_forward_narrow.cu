// Expansions of rows of 16 elements, forward. Per row 32 bytes come and 272 or 306 go: a lane makes its row in shared memory,
// with one store of a word for two columns, and one bulk store takes a warp's 32 rows away.
#include "feature_map/expansion_narrow.cuh"

namespace fla::detail {
namespace {

template <class T, bool kAffine>
FLA_KERNEL void FLA_BOUNDS((NarrowPlan<kAffine>::kThreads), (NarrowPlan<kAffine>::kBlocks))
    narrow_forward_kernel(FLA_PARAMETERS ExpansionTile a, T* out) {
  using Columns = NarrowColumns<kAffine>;
  using Plan = NarrowPlan<kAffine>;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  T* ring = shared_memory<T>() + warp * 2 * Plan::kTile;
  float* parameters = shared_memory<float>() + Plan::kTileWords;
  release_dependents();
  wait_for_predecessor();
  NarrowWalk walk(a, Plan::kWarps, warp);
  NarrowInput<T> x;
  x.fetch(a, walk.first + lane);
  if constexpr (kAffine) {
    stage_parameters(a, parameters, parameters + kNarrowWidth);
    block_barrier();
  }
  for (int turn = 0; walk.first < walk.end; walk.first += walk.step, turn ^= 1) {
    T* tile = ring + turn * Plan::kTile;
    NarrowRow r;
    r.take(x);
    x.fetch(a, walk.first + walk.step + lane);
    if constexpr (kAffine) r.prepare(a, parameters, parameters + kNarrowWidth);
    else r.scale(a);
    if (lane == 0) bulk_stores_wait<1>();
    warp_barrier();

    NarrowLine<T, Columns::kCount> line(tile, lane);
    if constexpr (!kAffine) {
      line.put(0, 1.0f);
      FLA_UNROLL
      for (int i = 0; i < kNarrowWidth; ++i) line.put(Columns::kLinear + i, r.t[i]);
    }
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) line.put(Columns::kSquares + i, r.t[i] * (r.t[i] * kRootHalf));
    int column = Columns::kTriangle;
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) {
      FLA_UNROLL
      for (int j = i + 1; j < kNarrowWidth; ++j) line.put(column++, r.t[i] * r.t[j]);
    }
    publish_to_async();
    warp_barrier();

    constexpr int kWide = 16 / sizeof(T);
    const int elements = walk.rows_from(walk.first) * Columns::kCount;
    const int whole = elements / kWide * kWide;
    T* to = out + walk.first * Columns::kCount;
    if (lane == 0) bulk_store(to, tile, static_cast<uint32_t>(whole * static_cast<int>(sizeof(T))));
    if (whole + lane < elements) store(to + whole + lane, load<T, 1>(tile + whole + lane));
  }
  if (lane == 0) bulk_stores_wait<0>();
}

template <class T, bool kAffine>
Status launch_narrow(const ExpansionTile& a, void* out, Stream stream) {
  using Plan = NarrowPlan<kAffine>;
  return launch<&narrow_forward_kernel<T, kAffine>>({.grid = narrow_blocks<kAffine>(a.rows),
                                                     .block = Plan::kThreads,
                                                     .shared_bytes = 4 * (Plan::kTileWords + (kAffine ? 2 * kNarrowWidth : 0)),
                                                     .stream = stream,
                                                     .dependent = true},
                                                    a, static_cast<T*>(out));
}

}  // namespace

Status run_narrow(const ExpansionTile& a, void* out, DType dtype, Stream stream) {
  const bool affine = !a.columns.linear;
  if (dtype == DType::bf16) return affine ? launch_narrow<bf16, true>(a, out, stream) : launch_narrow<bf16, false>(a, out, stream);
  return affine ? launch_narrow<f16, true>(a, out, stream) : launch_narrow<f16, false>(a, out, stream);
}

}  // namespace fla::detail
