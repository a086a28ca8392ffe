// One or two linear layers on the same rows, h = x [weight; weight2]^T, as one product, and their gradients.
#pragma once

#include "linear/parts.h"

namespace fla::detail {

struct Layers {
  Tensor x;                  // [M, D]
  Tensor weight, weight2;    // [E, D]; the second may be absent
  Tensor stack;              // both, one below the other: the weight itself where it is alone

  int64_t outputs() const { return weight.size[0] * (weight2 ? 2 : 1); }

  static Layers plan(WorkspaceParts& parts, const Tensor& x, const Tensor& weight, const Tensor& weight2) {
    Layers l{.x = x, .weight = weight, .weight2 = weight2, .stack = weight};
    if (weight2) l.stack = parts.take_matrix(true, weight.dtype, 2 * weight.size[0], weight.size[1]);
    return l;
  }

  // Before the first product.
  Status fill(Stream stream) const {
    if (!weight2) return {};
    const int64_t E = weight.size[0];
    if (Status s = copy_rows(weight, rows_of(stack, 0, E), stream); !s.ok()) return s;
    return copy_rows(weight2, rows_of(stack, E, E), stream);
  }
  Status forward(const Tensor& h, Workspace product, Stream stream) const {
    return gemm({.a = x, .b = stack, .c = h, .transpose_b = true}, product, stream);
  }
  Status input_gradient(const Tensor& dh, const Tensor& dx, Workspace product, Stream stream) const {
    return gemm({.a = dh, .b = stack, .c = dx}, product, stream);
  }
  // `dstack`: f32 [2E, D], where there are two weights.
  Status weight_gradients(const Tensor& dh, const Tensor& dstack, const Tensor& dweight, const Tensor& dweight2,
                          Workspace product, Stream stream) const {
    const Tensor& out = dstack ? dstack : dweight;
    if (Status s = gemm({.a = dh, .b = x, .c = out, .transpose_a = true}, product, stream); !s.ok() || !dstack) return s;
    const int64_t E = weight.size[0];
    if (dweight)
      if (Status s = copy_rows(rows_of(dstack, 0, E), dweight, stream); !s.ok()) return s;
    return dweight2 ? copy_rows(rows_of(dstack, E, E), dweight2, stream) : Status{};
  }
};

}  // namespace fla::detail
