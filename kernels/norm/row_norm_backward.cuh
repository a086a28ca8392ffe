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
  int32_t stages = 0, rows_per_stage = 1;
  float inverse_columns = 0;
};

// du of one chunk: rstd (s - xhat mean) + dresidual_out, with s = dy weight and xhat = u rstd.
template <int kWidth>
FLA_DEVICE void input_gradient(const float (&xhat)[kWidth], const float (&s)[kWidth], float rstd, float mean,
                               float (&du)[kWidth]) {
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) du[e] = rstd * (s[e] - xhat[e] * mean);
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

template <int kWidth>
FLA_DEVICE void write_recomputed(const BackwardArgs& a, float (&xhat)[kWidth], const float (&w)[kWidth],
                                 int64_t offset, int column) {
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) xhat[e] *= w[e];
  if (a.bias) {
    float b[kWidth];
    load_floats(a.bias, column, b);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) xhat[e] += b[e];
  }
  store_floats(a.y.data, offset + column, xhat);
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

template <int kWidth>
FLA_DEVICE void store_partial(float* partials, int64_t offset, const float (&sums)[kWidth]) {
  if (partials) store_floats(partials + offset, sums);
}

// The three ways to run one group of rows (rms_norm_backward_*.cu). U is the dtype of u and of the residual
// gradients, Y that of dy, dx and y.
template <class U, class Y>
Status rms_norm_backward_lanes(BackwardArgs a, const BackwardPlan& plan, bool with_bias, Stream stream);
template <class U, class Y>
Status rms_norm_backward_ring(BackwardArgs a, const BackwardPlan& plan, bool with_bias, Stream stream);
// The column sums of dy alone.
Status rms_norm_backward_bias(BackwardArgs a, Stream stream);
// Any dtypes and alignment; `vectors_of_8` when every row of every operand allows them.
Status rms_norm_backward_streamed(const BackwardArgs& a, bool vectors_of_8, Stream stream);

}  // namespace fla::detail
