// A gated unit and a linear layer. Beside the products, forward writes z and reads it back (3 M F elements), backward
// makes dz, dx, dy and z in one pass of 6 M F; z takes dz's place. Keeping z instead would save a third of that pass
// and cost M F elements for the whole backward, which is what the operator is there to avoid.
#include "common/alignment.h"
#include "fla/validate.h"
#include "linear/parts.h"

namespace fla {
namespace {

using namespace detail;

template <class A>
GluForward inner_forward(const A& a, const Tensor& z) {
  return {.kind = a.kind, .x = a.x, .y = a.y, .z = z, .parameters = a.parameters};
}

// z may be absent, or exactly dz.
GluBackward inner_backward(const GluLinearBackward& a, const Tensor& dz, const Tensor& z) {
  return {.kind = a.kind, .x = a.x, .y = a.y, .dz = dz, .dx = a.dx, .dy = a.dy, .z = z, .parameters = a.parameters};
}

struct ForwardParts {
  Tensor z, bias;
  Workspace product;
  size_t bytes;

  explicit ForwardParts(const GluLinearForward& a, void* base = nullptr) {
    WorkspaceParts parts(base);
    z = parts.take_matrix(true, a.x.dtype, a.x.size[0], a.x.size[1]);
    bias = bias_part(parts, a.linear_bias, a.x.dtype);
    ProductWorkspace products;
    products.fit(true, a.x.size[0], a.linear_weight.size[0]);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

struct BackwardParts {
  Tensor dz;  // and z in its place
  float* partials;
  Workspace product;
  size_t bytes;

  explicit BackwardParts(const GluLinearBackward& a, void* base = nullptr) {
    const int64_t M = a.x.size[0], F = a.x.size[1], O = a.linear_weight.size[0];
    WorkspaceParts parts(base);
    dz = parts.take_matrix(a.dx || a.dy || a.dlinear_weight, a.x.dtype, M, F);
    partials = static_cast<float*>(
        parts.take(a.dlinear_bias ? static_cast<size_t>(column_partials(M) * O) * sizeof(float) : 0));
    ProductWorkspace products;
    products.fit(a.dx || a.dy, M, F);
    products.fit(static_cast<bool>(a.dlinear_weight), O, F);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

}  // namespace

Status check(const GluLinearForward& a) {
  return first_error({check(inner_forward(a, a.x)), check_rows("linear_weight", a.linear_weight), check_rows("out", a.out)});
}

size_t workspace_bytes(const GluLinearForward& a) {
  return ForwardParts(a).bytes;
}

Status run(const GluLinearForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const ForwardParts parts(a, workspace.data);
  if (Status s = run(inner_forward(a, parts.z), {}, stream); !s.ok()) return s;
  if (Status s = fill_bias_part(a.linear_bias, parts.bias, stream); !s.ok()) return s;
  return gemm({.a = parts.z, .b = a.linear_weight, .c = a.out, .bias = parts.bias, .transpose_b = true}, parts.product,
              stream);
}

Status check(const GluLinearBackward& a) {
  if (!a.dx && !a.dy && !a.dlinear_weight && !a.dlinear_bias)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  return first_error({check(inner_forward(a, a.x)), check_rows("linear_weight", a.linear_weight), check_rows("dout", a.dout),
                      check_weight_gradient("dlinear_weight", a.dlinear_weight, a.linear_weight.dtype)});
}

size_t workspace_bytes(const GluLinearBackward& a) {
  return BackwardParts(a).bytes;
}

Status run(const GluLinearBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const BackwardParts parts(a, workspace.data);
  const Tensor z = a.dlinear_weight ? parts.dz : Tensor{};
  if (a.dx || a.dy) {
    if (Status s = gemm({.a = a.dout, .b = a.linear_weight, .c = parts.dz}, parts.product, stream); !s.ok()) return s;
    if (Status s = run(inner_backward(a, parts.dz, z), {}, stream); !s.ok()) return s;
  } else if (z) {
    if (Status s = run(inner_forward(a, z), {}, stream); !s.ok()) return s;
  }
  if (z) {
    const Gemm product{
        .a = a.dout, .b = z, .c = a.dlinear_weight, .transpose_a = true, .accumulate = a.accumulate};
    if (Status s = gemm(product, parts.product, stream); !s.ok()) return s;
  }
  return a.dlinear_bias ? sum_columns(a.dout, a.dlinear_bias, parts.partials, stream) : Status{};
}

}  // namespace fla
