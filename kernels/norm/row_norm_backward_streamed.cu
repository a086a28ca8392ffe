// RMS norm, backward, for every row that the fast forms do not take: dtypes mixed otherwise, unaligned or long rows.
//
// Two kernels: one block per row for the input gradients (u and dy are read twice, the second time mostly from L1 or
// L2), and one for the column sums (u and dy once more): 10 bytes an element in bf16 where the ring moves 6.
#include "norm/rms_norm_backward.cuh"

namespace fla::detail {
namespace {

inline constexpr int kThreads = 256;

template <int kWidth>
FLA_KERNEL void FLA_BOUNDS(kThreads, 4) rows_kernel(FLA_PARAMETERS BackwardArgs a) {
  auto* slots = shared_memory<BlockSlots<1>>();
  const int first = static_cast<int>(threadIdx.x) * kWidth, step = kThreads * kWidth;
  const int64_t row = blockIdx.x;
  const int64_t u_offset = a.grid.offset(row, a.u), dy_offset = a.grid.offset(row, a.dy);
  const int64_t carried_offset = a.grid.offset(row, a.dresidual_out);
  const float rstd = load_float(static_cast<const float*>(a.rstd.data.data) + a.grid.offset(row, a.rstd));
  float mean = 0.0f;
  for (int column = first; column < a.columns; column += step) {
    float u[kWidth], dy[kWidth], w[kWidth];
    load_floats(a.u.data, u_offset + column, u);
    load_floats(a.dy.data, dy_offset + column, dy);
    load_weight(a, column, w);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) mean = fmaf(u[e] * rstd, dy[e] * w[e], mean);
  }
  mean = block_sum(mean, *slots) * a.inverse_columns;
  const RowOffsets<false> to(a, row);
  for (int column = first; column < a.columns; column += step) {
    float xhat[kWidth], s[kWidth], w[kWidth], du[kWidth];
    load_floats(a.u.data, u_offset + column, xhat);
    load_floats(a.dy.data, dy_offset + column, s);
    load_weight(a, column, w);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      xhat[e] *= rstd;
      s[e] *= w[e];
    }
    input_gradient(xhat, s, rstd, mean, du);
    if (a.dresidual_out.data) {
      float carried[kWidth];
      load_floats(a.dresidual_out.data, carried_offset + column, carried);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) du[e] += carried[e];
    }
    if (a.dx.data) store_floats(a.dx.data, to.dx + column, du);
    if (a.dresidual.data) store_floats(a.dresidual.data, to.dresidual + column, du);
    if (a.y.data) write_recomputed(a, xhat, w, to.y, column);
  }
}

// One column per thread, every parts-th row.
FLA_KERNEL void FLA_BOUNDS(kThreads, 4) columns_kernel(FLA_PARAMETERS BackwardArgs a, uint32_t column_blocks) {
  const uint32_t part = blockIdx.x / column_blocks;
  const int column = static_cast<int>((blockIdx.x - part * column_blocks) * kThreads + threadIdx.x);
  if (column >= a.columns) return;
  float dweight = 0.0f, dbias = 0.0f;
  FLA_UNROLL_BY(4)
  for (int64_t row = part; row < a.grid.rows; row += a.parts) {
    const float rstd = load_float(static_cast<const float*>(a.rstd.data.data) + a.grid.offset(row, a.rstd));
    const float dy = load_float(a.dy.data, a.grid.offset(row, a.dy) + column);
    const float u = load_float(a.u.data, a.grid.offset(row, a.u) + column);
    dweight = fmaf(dy, u * rstd, dweight);
    dbias += dy;
  }
  const int64_t at = static_cast<int64_t>(part) * a.partial_stride + column;
  if (a.dweight_partials) store_float(a.dweight_partials + at, dweight);
  if (a.dbias_partials) store_float(a.dbias_partials + at, dbias);
}

Status launch_columns(const BackwardArgs& a, Stream stream) {
  if (!a.dweight_partials && !a.dbias_partials) return {};
  const int64_t column_blocks = divide_up(a.columns, kThreads);
  return launch<&columns_kernel>({.grid = column_blocks * a.parts, .block = kThreads, .stream = stream}, a,
                                 static_cast<uint32_t>(column_blocks));
}

}  // namespace

Status rms_norm_backward_bias(BackwardArgs a, Stream stream) {
  a.dweight_partials = nullptr;
  return launch_columns(a, stream);
}

Status rms_norm_backward_streamed(const BackwardArgs& a, bool vectors_of_8, Stream stream) {
  // Column sums first: dx may be written over dy.
  if (Status s = launch_columns(a, stream); !s.ok()) return s;
  if (!a.dx.data && !a.dresidual.data && !a.y.data) return {};
  const Launch shape{.grid = a.grid.rows, .block = kThreads, .shared_bytes = sizeof(BlockSlots<1>), .stream = stream};
  return vectors_of_8 ? launch<&rows_kernel<8>>(shape, a) : launch<&rows_kernel<1>>(shape, a);
}

}  // namespace fla::detail
