// 264 x 4096 partials: 4.3 MB read, mostly from L2. A block takes 32 columns; 32 threads share four of them, each sums
// every 32nd part in order (all its loads in flight at once), then a fixed tree.
#include "common/column_sum.cuh"

#include "common/alignment.h"
#include "common/launch.h"
#include "common/mutate.h"
#include "common/ptx.cuh"
#include "common/warp.cuh"

namespace fla::detail {
namespace {

constexpr int kColumns = 32, kThreads = 256, kWidth = 4;
constexpr int kQuads = kColumns / kWidth, kLanes = kThreads / kQuads, kWarps = kThreads / kWarp;

// kVector: rows of partials are whole 16-byte vectors.
template <bool kVector>
FLA_DEVICE void load_partials(const float* partials, int64_t columns, int64_t column, float (&out)[kWidth]) {
  if constexpr (kVector) {
    load_floats(partials + column, out);
  } else {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) out[e] = column + e < columns ? load_float(partials + column + e) : 0.0f;
  }
}

template <bool kVector>
FLA_KERNEL void FLA_BOUNDS(kThreads, 4)
    finish_columns_kernel(FLA_PARAMETERS ColumnTargets targets, int64_t parts) {
  const ColumnTarget& target = targets.of[blockIdx.y];
  const int64_t columns = target.columns;
  float* sums = shared_memory<float>();
  const int thread = static_cast<int>(threadIdx.x), quad = thread % kQuads, lane = thread / kQuads;
  const int64_t base = static_cast<int64_t>(blockIdx.x) * kColumns, column = base + quad * kWidth;
  float sum[kWidth] = {};
  release_dependents();
  wait_for_predecessor();
  if (column < columns) {
    FLA_UNROLL_BY(8)
    for (int64_t part = lane; part < FLA_MUTATE("rms_norm.bwd: last part missing", parts, parts - 1); part += kLanes) {
      float next[kWidth];
      load_partials<kVector>(target.partials + part * columns, columns, column, next);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) sum[e] += next[e];
    }
  }
  // The lanes of a warp that share columns, then the warps.
  FLA_UNROLL
  for (int step = kQuads; step < kWarp; step *= 2) {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) sum[e] += shuffle_xor(sum[e], step);
  }
  if (thread % kWarp < kQuads) {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) sums[thread / kWarp * kColumns + quad * kWidth + e] = sum[e];
  }
  FLA_MUTATE("rms_norm.bwd: no barrier before the sum of warps", block_barrier(), void(0));
  const bool outside = FLA_MUTATE("rms_norm.bwd: a column past the last", base + thread >= columns, base + thread > columns);
  if (thread >= kColumns || outside) return;
  float total = sums[thread];
  FLA_UNROLL
  for (int w = 1; w < FLA_MUTATE("rms_norm.bwd: a warp too few", kWarps, kWarps - 1); ++w) total += sums[w * kColumns + thread];
  const int64_t column_at = base + thread, at = column_at / target.inner * target.outer_stride + column_at % target.inner;
  if (target.accumulate) total += load_float(target.out, at);
  store_float(target.out, at, total);
}

}  // namespace

Status finish_columns(const ColumnTargets& all, int64_t parts, Stream stream) {
  ColumnTargets targets;
  int count = 0;
  int64_t most = 0;
  bool vectors = true;
  for (const ColumnTarget& t : all.of) {
    if (!t.out || FLA_MUTATE("rms_norm.bwd: sums of nothing not stored", t.columns == 0, t.columns * parts == 0)) continue;
    targets.of[count++] = t;
    if (t.columns > most) most = t.columns;
    vectors = vectors && t.columns % kWidth == 0;
  }
  if (count == 0) return {};
  const Launch shape{.grid = divide_up(most, kColumns),
                     .grid_y = count,
                     .block = kThreads,
                     .shared_bytes = kWarps * kColumns * sizeof(float),
                     .stream = stream,
                     .dependent = true};
  return vectors ? launch<&finish_columns_kernel<true>>(shape, targets, parts)
                 : launch<&finish_columns_kernel<false>>(shape, targets, parts);
}

}  // namespace fla::detail
