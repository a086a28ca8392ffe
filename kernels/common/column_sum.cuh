// The second stage of every parameter gradient: partial rows, summed column by column in fixed order. The first stage
// (a kernel of the operator) stores one fp32 row per part; how many parts there are depends on the shape alone, never
// on the number of multiprocessors, so the sums are the same bits on every GPU.
#pragma once

#include "common/vector.cuh"
#include "fla/status.h"

namespace fla::detail {

// Where column c goes: out[c / inner * outer_stride + c % inner].
struct ColumnTarget {
  const float* partials = nullptr;  // [parts][columns]
  AnyFloat out;                     // absent: skipped
  int64_t columns = 0, inner = 1, outer_stride = 0;
  bool accumulate = false;          // onto what is there
};
struct ColumnTargets {
  ColumnTarget of[4];
};

inline ColumnTarget column_target(const float* partials, const Tensor& out, bool accumulate = false) {
  const int64_t inner = out.rank > 0 ? out.size[out.rank - 1] : 1;
  return {partials, any_float(out), count(out), inner, out.rank > 1 ? out.stride[out.rank - 2] : inner, accumulate};
}

// Sums sets of partials of as many parts in one launch. parts = 0 stores or adds zeros.
Status finish_columns(const ColumnTargets& targets, int64_t parts, Stream stream);
inline Status finish_columns(const ColumnTarget& target, int64_t parts, Stream stream) {
  return finish_columns(ColumnTargets{{target}}, parts, stream);
}

// The column sums of a matrix: both stages. `partials` holds column_partials(rows) rows of `columns` floats.
int64_t column_partials(int64_t rows);
Status sum_columns(const Tensor& matrix, const Tensor& out, float* partials, Stream stream);

}  // namespace fla::detail
