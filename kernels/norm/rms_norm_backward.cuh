// RMS norm, backward: what its kernels share.
#pragma once

#include "common/alignment.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "norm/row_operand.cuh"
#include "norm/row_plan.h"

namespace fla::detail {

struct BackwardArgs {
  RowGrid grid;                                   // of one group, or of all rows when parameters are shared
  RowOperand u, dy, dresidual_out, rstd;          // u: the normalised rows as stored
  RowOperand dx, dresidual, y;                    // outputs, each may be absent
  AnyFloat weight, bias;
  float* dweight_partials = nullptr;              // [parts][columns], may be absent
  float* dbias_partials = nullptr;
  int64_t parts = 1;
  int64_t partial_stride = 0;                     // floats from one part to the next
  int32_t columns = 0;
  int32_t lanes_log2 = 5;
  float inverse_columns = 0;
};

// du of one chunk: rstd (dy weight - xhat mean) with xhat = u rstd, as rstd dy weight + u minus_slope; minus_slope is
// -rstd^2 mean, the same for the whole row.
template <int kWidth>
FLA_DEVICE void input_gradient(const float (&u)[kWidth], const float (&dy)[kWidth], const float (&w)[kWidth], float rstd,
                               float minus_slope, float (&du)[kWidth]) {
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) du[e] = fmaf(dy[e] * rstd, w[e], u[e] * minus_slope);
}

// The offsets of one row in every operand that is written.
template <bool kFlat>
struct RowOffsets {
  int64_t dx, dresidual, y;
  FLA_DEVICE RowOffsets(const BackwardArgs& a, int64_t row)
      : dx(a.grid.offset<kFlat>(row, a.dx)),
        dresidual(a.grid.offset<kFlat>(row, a.dresidual)),
        y(a.grid.offset<kFlat>(row, a.y)) {}
};

// y of one chunk, by the forward's operations. Consumes u.
template <int kWidth>
FLA_DEVICE void write_recomputed(const BackwardArgs& a, float (&u)[kWidth], float rstd, const float (&w)[kWidth],
                                 int64_t offset, int column) {
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) u[e] = u[e] * rstd * w[e];
  if (a.bias) {
    float b[kWidth];
    load_floats(a.bias, column, b);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] += b[e];
  }
  store_floats(a.y.data, offset + column, u);
}

template <int kWidth>
FLA_DEVICE void load_weight(const BackwardArgs& a, int column, float (&w)[kWidth]) {
  if (a.weight) {
    load_floats(a.weight, column, w);
  } else {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) w[e] = 1.0f;
  }
}

// Adds up the column sums of a block's row groups, in order, and stores one row of partial sums. `own` are the sums of
// the chunks lane, lane + lanes, ...; `shared` has room for a row of floats per group.
template <int kVectors, int kWidth>
FLA_DEVICE void store_column_sums(const BackwardArgs& a, const float (&own)[kVectors][kWidth], int lane, int lanes, int group,
                                  float* shared, float* partials) {
  if (!partials) return;
  block_barrier();
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int column = (lane + i * lanes) * kWidth;
    if (column < a.columns) store_floats(shared + group * a.columns + column, own[i]);
  }
  block_barrier();
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), groups = threads / lanes;
  float* out = partials + static_cast<int64_t>(blockIdx.x) * a.partial_stride;
  for (int column = thread; column < a.columns; column += threads) {
    float sum = load_float(shared + column);
    for (int g = 1; g < groups; ++g) sum += load_float(shared + g * a.columns + column);
    store_float(out + column, sum);
  }
}

template <int kWidth>
FLA_DEVICE void store_partial(float* partials, int64_t offset, const float (&sums)[kWidth]) {
  if (partials) store_floats(partials + offset, sums);
}

// The three ways to run one group of rows (rms_norm_backward_*.cu). U is the dtype of u and of the residual
// gradients, Y that of dy, dx and y.
template <class U, class Y>
Status rms_norm_backward_lanes(BackwardArgs a, const BackwardPlan& plan, bool with_bias, Stream stream);
template <class U, class Y>
Status rms_norm_backward_ring(const BackwardArgs& a, const BackwardPlan& plan, bool with_bias, Stream stream);
// The column sums of dy alone.
Status rms_norm_backward_bias(BackwardArgs a, Stream stream);
// Any dtypes and alignment; `vectors_of_8` when every row of every operand allows them.
Status rms_norm_backward_streamed(const BackwardArgs& a, bool vectors_of_8, Stream stream);

}  // namespace fla::detail
