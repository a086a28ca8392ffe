// What linear layers with an inner part share: biases in the dtype of a product, workspace of products.
#pragma once

#include "common/column_sum.cuh"
#include "common/copy.h"
#include "common/gemm.h"
#include "common/workspace.h"
#include "fla/linear.h"

namespace fla::detail {

// The row of biases as a product of this dtype takes it: itself, or a place in the workspace for a copy.
inline Tensor bias_part(WorkspaceParts& parts, const Tensor& bias, DType dtype) {
  if (!bias || bias.dtype == dtype) return bias;
  return dense(parts.take(static_cast<size_t>(bias.size[0] * size_of(dtype))), dtype, {bias.size[0]});
}
inline Status fill_bias_part(const Tensor& bias, const Tensor& part, Stream stream) {
  if (!bias || bias.dtype == part.dtype) return {};
  return copy_rows(matrix(bias.data, bias.dtype, 1, bias.size[0]), matrix(part.data, part.dtype, 1, part.size[0]),
                   stream);
}

// The one place that all products of a call use in turn, as large as the largest needs.
class ProductWorkspace {
 public:
  void fit(bool needed, int64_t m, int64_t n) {
    if (needed && gemm_workspace_bytes(m, n) > bytes_) bytes_ = gemm_workspace_bytes(m, n);
  }
  Workspace take(WorkspaceParts& parts) const { return {parts.take(bytes_), bytes_}; }

 private:
  size_t bytes_ = 0;
};

// A gradient of a weight may be of another dtype than the weight, if that is f32.
inline Status check_weight_gradient(const char* name, const Tensor& gradient, DType weight) {
  if (!gradient || gradient.dtype == weight || gradient.dtype == DType::f32) return check_rows(name, gradient);
  return error(StatusCode::unsupported_dtype, "%s: dtype %s, expected %s or f32", name, name_of(gradient.dtype),
               name_of(weight));
}

}  // namespace fla::detail
