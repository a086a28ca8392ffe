// Row norms, backward, for every row that the fast forms do not take: dtypes mixed otherwise, unaligned or long rows.
//
// Two kernels: one block per row for the row gradients (u and dy are read twice, the second time mostly from L1 or
// L2), and one for the column sums (u and dy once more): 10 bytes an element in bf16 where the ring moves 6.
#include "common/mutate.h"
#include "norm/row_norm_backward.cuh"

namespace fla::detail {
namespace {

inline constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// Row statistics and the gate are asked for at run time.
using AnyForm = BackwardForm<0, true, true>;

template <int kWidth>
struct Elements {
  float u[kWidth], dy[kWidth], gate[kWidth];

  FLA_DEVICE void read(const BackwardArgs& a, int64_t u_at, int64_t dy_at, int64_t gate_at) {
    load_floats(a.u.data, u_at, u);
    load_floats(a.dy.data, dy_at, dy);
    if (a.gate.data) load_floats(a.gate.data, gate_at, gate);
  }
};

template <int kWidth>
FLA_KERNEL void FLA_BOUNDS(kThreads, 3) row_norm_backward_rows_kernel(FLA_PARAMETERS BackwardArgs a) {
  auto* slots = shared_memory<BlockSlots<2>>();
  const int first = static_cast<int>(threadIdx.x) * kWidth, step = static_cast<int>(blockDim.x) * kWidth;
  const BackwardRow row{a.grid.at(blockIdx.x),
                        a.parameter_groups == 1 ? 0 : blockIdx.x % static_cast<uint32_t>(a.parameter_groups)};
  const int64_t u_at = row.in(a.u), dy_at = row.in(a.dy), gate_at = row.in(a.gate);
  const int64_t carried_at = row.in(a.dresidual_out), weight_at = row.group * a.weight_stride;
  const bool gated = static_cast<bool>(a.gate.data);
  const StoredStatistic statistic = load_statistic(a, row.at, a.centred);
  RowMeans<AnyForm> means{};
  for (int column = first; column < a.columns; column += step) {
    Elements<kWidth> x;
    float w[kWidth];
    x.read(a, u_at + column, dy_at + column, gate_at + column);
    load_weight(a, weight_at + column, w);
    to_terms<AnyForm>(a, statistic, x.gate, gated, x.u, x.dy);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      const float s = x.dy[e] * w[e];
      means.value[0] = fmaf(x.u[e], s, means.value[0]);
      means.value[1] += s;
    }
  }
  block_sum(means.value, *slots);
  means.value[0] *= a.share;
  means.value[1] *= a.centred ? a.share : 0.0f;
  for (int column = first; column < a.columns; column += step) {
    Elements<kWidth> x;
    float w[kWidth], carried[kWidth];
    x.read(a, u_at + column, dy_at + column, gate_at + column);
    load_weight(a, weight_at + column, w);
    const bool with_carried = static_cast<bool>(a.dresidual_out.data);
    if (with_carried) load_floats(a.dresidual_out.data, carried_at + column, carried);
    write_gradients<AnyForm, void, void>(a, statistic, means, x.u, x.dy, x.gate, gated, carried, with_carried, w, row,
                                         column);
  }
}

// A warp takes 32 kWidth columns and every (parts * kWarps)-th row of one set of parameters; the warps of a block, which
// have the same columns, add up in shared memory.
template <int kWidth>
FLA_KERNEL void FLA_BOUNDS(kThreads, 3)
    row_norm_backward_columns_kernel(FLA_PARAMETERS BackwardArgs a, uint32_t column_blocks) {
  constexpr int kColumns = kWarp * kWidth;
  const uint32_t columns_of_all = column_blocks * static_cast<uint32_t>(a.parameter_groups);
  const uint32_t part = blockIdx.x / columns_of_all, rest = blockIdx.x - part * columns_of_all;
  const uint32_t group = rest / column_blocks;
  const int first = static_cast<int>(rest - group * column_blocks) * kColumns;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int column = first + lane * kWidth;
  const bool gated = static_cast<bool>(a.gate.data);
  float dweight[kWidth] = {}, dbias[kWidth] = {};
  if (column < a.columns) {
    const int64_t rows = a.grid.rows / a.parameter_groups;
    FLA_UNROLL_BY(2)
    for (int64_t i = static_cast<int64_t>(part) * kWarps + warp; i < rows; i += a.parts * kWarps) {
      const RowAt row = a.grid.at(i * a.parameter_groups + group);
      const StoredStatistic statistic = load_statistic(a, row, a.centred);
      Elements<kWidth> x;
      x.read(a, row.in(a.u) + column, row.in(a.dy) + column, row.in(a.gate) + column);
      to_terms<AnyForm>(a, statistic, x.gate, gated, x.u, x.dy);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        dweight[e] = fmaf(x.dy[e], x.u[e], dweight[e]);
        dbias[e] += x.dy[e];
      }
    }
  }
  auto* shared = shared_memory<float>();
  auto reduce = [&](const float (&own)[kWidth], float* partials) {
    if (!partials) return;
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) shared[warp * kColumns + lane * kWidth + e] = own[e];
    FLA_MUTATE("layer_norm.bwd: no barrier before the sum of warps", block_barrier(), void(0));
    for (int c = static_cast<int>(threadIdx.x); c < kColumns && first + c < a.columns; c += kThreads) {
      float sum = shared[c];
      FLA_UNROLL
      for (int w = 1; w < kWarps; ++w) sum += shared[w * kColumns + c];
      store_float(partials + (static_cast<int64_t>(part) * a.parameter_groups + group) * a.columns + first + c, sum);
    }
    FLA_MUTATE("layer_norm.bwd: no barrier before the next sums", block_barrier(), void(0));
  };
  reduce(dweight, a.dweight_partials);
  reduce(dbias, a.dbias_partials);
}

template <int kWidth>
Status launch_columns(const BackwardArgs& a, Stream stream) {
  const int64_t column_blocks = divide_up(a.columns, kWarp * kWidth);
  return launch<&row_norm_backward_columns_kernel<kWidth>>({.grid = column_blocks * a.parameter_groups * a.parts,
                                                            .block = kThreads,
                                                            .shared_bytes = kThreads * kWidth * sizeof(float),
                                                            .stream = stream},
                                                           a, static_cast<uint32_t>(column_blocks));
}

}  // namespace

Status row_norm_backward_columns(BackwardArgs a, bool vectors_of_8, Stream stream) {
  return vectors_of_8 ? launch_columns<8>(a, stream) : launch_columns<1>(a, stream);
}

Status row_norm_backward_rows(const BackwardArgs& a, bool vectors_of_8, Stream stream) {
  const int64_t vectors = divide_up(a.columns, vectors_of_8 ? 8 : 1);
  const Launch shape{.grid = a.grid.rows,
                     .block = threads_for_row(vectors, kThreads),
                     .shared_bytes = sizeof(BlockSlots<2>),
                     .stream = stream};
  return vectors_of_8 ? launch<&row_norm_backward_rows_kernel<8>>(shape, a)
                      : launch<&row_norm_backward_rows_kernel<1>>(shape, a);
}

}  // namespace fla::detail
