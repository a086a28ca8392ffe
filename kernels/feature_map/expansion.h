// What the expansions of a row into products of its elements are lowered to (expansions.cu). Of a row v and a partner w of
// D elements each, a row of
//
//   [1]  [t_i]  [t_i^2 / sqrt(2)]  [triangle: t_i t_j or v_i w_j]          t = v scale
//
// each part present or not. v may be x itself or its affine or normalised row.
#pragma once

#include "common/vector.cuh"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

// Which columns there are, in order.
struct ExpansionColumns {
  int32_t width = 0;              // D
  bool ones = false, linear = false, squares = false;
  bool triangle = true;
  bool with_diagonal = false;     // i <= j, not i < j
  bool partner = false;           // products with w, not with t

  FLA_HOST_DEVICE int32_t linear_begin() const { return ones ? 1 : 0; }
  FLA_HOST_DEVICE int32_t squares_begin() const { return linear_begin() + (linear ? width : 0); }
  FLA_HOST_DEVICE int32_t triangle_begin() const { return squares_begin() + (squares ? width : 0); }
  // Of pair (i, j) in a row: this + j.
  FLA_HOST_DEVICE int32_t pairs_of(int32_t i) const {
    const auto u = static_cast<uint32_t>(i), n = static_cast<uint32_t>(width);
    const uint32_t before = with_diagonal ? u * (2 * n - u + 1) / 2 : u * (2 * n - u - 1) / 2;
    return triangle_begin() + static_cast<int32_t>(before) - i - (with_diagonal ? 0 : 1);
  }
};

// How v comes from x.
struct ExpansionRow {
  Tensor gamma = {}, beta = {};
  bool normalize = false;
  float eps = 0;
  float scale = 1;
};

struct Expansion {
  ExpansionColumns columns = {};
  ExpansionRow row = {};
  Tensor x = {}, partner = {};         // [M, D]
  Tensor out = {}, diagonal = {};      // [M, columns]; v_i w_i by itself, or absent
};

struct ExpansionBackward {
  ExpansionColumns columns = {};
  ExpansionRow row = {};
  Tensor x = {}, partner = {};
  Tensor dout = {}, ddiagonal = {};
  Tensor dx = {}, dpartner = {};       // where the partner is x itself, dx may be the sum of both
  bool sum_both = false;
  Tensor dgamma = {}, dbeta = {};
};

// The row stride of an operand of a launch; a single row, and an absent operand, have none.
inline int64_t row_stride(const Tensor& t) { return t && t.size[0] > 1 ? t.stride[0] : 0; }

// Whether a row of D elements fits; arguments are valid otherwise.
Status check_expansion(const char* name, int64_t width);
Status run(const Expansion&, Stream);
size_t workspace_bytes(const ExpansionBackward&);
Status run(const ExpansionBackward&, Workspace, Stream);

}  // namespace fla::detail
