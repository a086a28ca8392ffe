// Rows [M, G, N] with free outer strides, as kernels address them.
#pragma once

#include <initializer_list>

#include "common/gpu.h"
#include "common/vector.cuh"
#include "common/workspace.h"
#include "fla/tensor.h"

namespace fla::detail {

// Strides have 32 bits (check_row_strides): one multiply-add finds a row, where 64 bits take four, and a row of one vector to a
// lane costs little more than finding its operands.
struct RowOperand {
  AnyFloat data;
  uint32_t stride_m = 0, stride_g = 0;
};

// Where a row lies: `below` rows under (m, g), which neighbours that differ in nothing else find together.
struct RowAt {
  uint32_t m = 0, g = 0, below = 0;

  FLA_DEVICE int64_t in(const RowOperand& operand) const {
    return static_cast<int64_t>(uint64_t{m} * operand.stride_m + uint64_t{g} * operand.stride_g +
                                uint64_t{below} * operand.stride_m);
  }
};

// How many rows there are and how their number splits into (m, g).
struct RowGrid {
  int64_t rows = 0;
  uint32_t groups = 1;  // rows are numbered m * groups + g

  FLA_DEVICE RowAt at(int64_t row) const {
    const auto number = static_cast<uint32_t>(row);
    if (groups == 1) return {number, 0};
    const uint32_t m = number / groups;
    return {m, number - m * groups};
  }
  // Where the row lies that is `step` rows on, a step being split as a row's number is: no division.
  FLA_DEVICE RowAt after(RowAt row, RowAt step) const {
    const uint32_t g = row.g + step.g, carry = g >= groups ? 1 : 0;
    return {row.m + step.m + carry, g - (carry ? groups : 0)};
  }
};

// [M, G, N], or [M, N] where the group dimension was left out; statistics likewise without N.
inline RowOperand row_operand(const Tensor& t, bool statistic = false) {
  const int inner = statistic ? 0 : 1, outer = t.rank - inner;
  if (!t) return {};
  auto stride = [&](int d) { return static_cast<uint32_t>(outer > d ? t.stride[d] : 0); };
  return {any_float(t), stride(0), stride(1)};
}

struct NamedRows {
  const char* name;
  const Tensor& rows;
};
inline Status check_row_strides(std::initializer_list<NamedRows> operands) {
  for (const auto& [name, t] : operands)
    for (int d = 0; d < t.rank; ++d)
      if (t && t.size[d] > 1 && t.stride[d] > 0xffffffff)
        return error(StatusCode::bad_stride, "%s: rows lie %lld elements apart, less than 2^32 are supported", name,
                     static_cast<long long>(t.stride[d]));
  return {};
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
