// Rows [M, G, N] with free outer strides, as kernels address them.
#pragma once

#include "common/gpu.h"
#include "common/vector.cuh"
#include "fla/tensor.h"

namespace fla::detail {

struct RowOperand {
  AnyFloat data;
  int64_t stride_m = 0, stride_g = 0;
};

// How many rows there are and how their number splits into (m, g).
struct RowGrid {
  int64_t rows = 0;
  uint32_t groups = 1;  // rows are numbered m * groups + g

  FLA_DEVICE int64_t offset(int64_t row, int64_t stride_m, int64_t stride_g) const {
    if (groups == 1) return row * stride_m;
    const int64_t m = row / groups;
    return m * stride_m + (row - m * groups) * stride_g;
  }
  // kFlat: the caller knows that groups is 1. A 64-bit division in a kernel's loop costs more than its arithmetic.
  template <bool kFlat = false>
  FLA_DEVICE int64_t offset(int64_t row, const RowOperand& operand) const {
    if constexpr (kFlat) return row * operand.stride_m;
    else return offset(row, operand.stride_m, operand.stride_g);
  }
  FLA_DEVICE uint32_t group(int64_t row) const { return groups == 1 ? 0 : static_cast<uint32_t>(row % groups); }
};

// [M, G, N], or [M, N] where the group dimension was left out; statistics likewise without N.
inline RowOperand row_operand(const Tensor& t, bool statistic = false) {
  const int inner = statistic ? 0 : 1, outer = t.rank - inner;
  if (!t) return {};
  return {any_float(t), outer > 0 ? t.stride[0] : 0, outer > 1 ? t.stride[1] : 0};
}

struct RowExtent {
  int64_t m = 0, g = 1, n = 0;
};
inline RowExtent row_extent(const Tensor& t) {
  if (t.rank == 3) return {t.size[0], t.size[1], t.size[2]};
  return {t.size[0], 1, t.size[1]};
}

// Whether (m, g) steps evenly in this operand, so that rows can be numbered without a division.
inline bool groups_collapse(const RowOperand& operand, int64_t groups) {
  return !operand.data || operand.stride_m == groups * operand.stride_g;
}
inline void collapse_groups(RowOperand& operand) { operand.stride_m = operand.stride_g; }

}  // namespace fla::detail
