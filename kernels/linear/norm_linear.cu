// A norm, gated or not, and a linear layer. Beside the products, forward writes y and reads it back (2 M C elements
// beside x and gate), backward makes dy, and in one pass of the norm's backward dx, dgate and y again.
#include "common/alignment.h"
#include "fla/gated_norm.h"
#include "fla/validate.h"
#include "linear/parts.h"

namespace fla {
namespace {

using namespace detail;

// [M, C] as [M, G, C / G], and [C] likewise; one group stays as it is.
Tensor grouped(const Tensor& t, int64_t groups) {
  if (!t || groups == 1) return t;
  Tensor g = t;
  const int last = t.rank - 1;
  g.rank = t.rank + 1;
  g.size[last] = groups;
  g.size[last + 1] = t.size[last] / groups;
  g.stride[last] = g.size[last + 1] * t.stride[last];
  g.stride[last + 1] = t.stride[last];
  return g;
}

template <NormKind kKind>
GatedNormForward<kKind> inner_forward(const NormLinearForward& a, const Tensor& y) {
  const int64_t G = a.num_groups;
  return {.x = grouped(a.x, G),
          .residual = grouped(a.residual, G),
          .gate = grouped(a.gate, G),
          .weight = grouped(a.weight, G),
          .bias = grouped(a.bias, G),
          .y = grouped(y, G),
          .residual_out = grouped(a.residual_out, G),
          .mean = a.mean,
          .rstd = a.rstd,
          .eps = a.eps,
          .weight_offset = a.weight_offset,
          .activation = a.activation,
          .gate_order = a.gate_order,
          .weight_per_group = G > 1};
}

template <NormKind kKind>
GatedNormBackward<kKind> inner_backward(const NormLinearBackward& a, const Tensor& dy, const Tensor& y) {
  const int64_t G = a.num_groups;
  return {.x = grouped(a.x, G),
          .residual_out = grouped(a.residual_out, G),
          .gate = grouped(a.gate, G),
          .weight = grouped(a.weight, G),
          .bias = grouped(a.bias, G),
          .mean = a.mean,
          .rstd = a.rstd,
          .dy = grouped(dy, G),
          .dresidual_out = grouped(a.dresidual_out, G),
          .dx = grouped(a.dx, G),
          .dgate = grouped(a.dgate, G),
          .dresidual = grouped(a.dresidual, G),
          .dweight = grouped(a.dweight, G),
          .dbias = grouped(a.dbias, G),
          .y = grouped(y, G),
          .weight_offset = a.weight_offset,
          .activation = a.activation,
          .gate_order = a.gate_order,
          .weight_per_group = G > 1};
}

// Calls `use` with the norm of the call's kind; without a gate, the gated form is the plain norm.
template <class Use>
auto with_inner(const NormLinearForward& a, const Tensor& y, Use use) {
  return a.kind == NormKind::layer ? use(inner_forward<NormKind::layer>(a, y))
                                   : use(inner_forward<NormKind::rms>(a, y));
}
template <class Use>
auto with_inner(const NormLinearBackward& a, const Tensor& dy, const Tensor& y, Use use) {
  return a.kind == NormKind::layer ? use(inner_backward<NormKind::layer>(a, dy, y))
                                   : use(inner_backward<NormKind::rms>(a, dy, y));
}

constexpr auto kCheck = [](const auto& norm) { return check(norm); };
constexpr auto kWorkspaceBytes = [](const auto& norm) { return workspace_bytes(norm); };

struct ForwardParts {
  Tensor y, bias;
  Workspace norm, product;
  size_t bytes;

  explicit ForwardParts(const NormLinearForward& a, void* base = nullptr) {
    WorkspaceParts parts(base);
    y = parts.take_matrix(true, a.x.dtype, a.x.size[0], a.x.size[1]);
    bias = bias_part(parts, a.linear_bias, a.x.dtype);
    const size_t inner = with_inner(a, y, kWorkspaceBytes);
    norm = {parts.take(inner), inner};
    ProductWorkspace products;
    products.fit(true, a.x.size[0], a.linear_weight.size[0]);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

struct BackwardParts {
  bool runs_norm, needs_dy;
  Tensor dy, y;
  float* partials;
  Workspace norm, product;
  size_t bytes;

  explicit BackwardParts(const NormLinearBackward& a, void* base = nullptr) {
    const int64_t M = a.dout.size[0], C = a.linear_weight.size[1], O = a.linear_weight.size[0];
    const DType dtype = a.linear_weight.dtype;
    needs_dy = a.dx || a.dgate || a.dresidual || a.dweight || a.dbias;
    runs_norm = needs_dy || a.dlinear_weight;
    WorkspaceParts parts(base);
    dy = parts.take_matrix(runs_norm, dtype, M, C);
    y = parts.take_matrix(static_cast<bool>(a.dlinear_weight), dtype, M, C);
    const size_t inner = runs_norm ? with_inner(a, dy, y, kWorkspaceBytes) : 0;
    norm = {parts.take(inner), inner};
    partials = static_cast<float*>(
        parts.take(a.dlinear_bias ? static_cast<size_t>(column_partials(M) * O) * sizeof(float) : 0));
    ProductWorkspace products;
    products.fit(needs_dy, M, C);
    products.fit(static_cast<bool>(a.dlinear_weight), O, C);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

Status check_groups(int64_t groups, int64_t width) {
  if (width < 1) return error(StatusCode::unsupported_shape, "linear_weight: rows of C = 0 elements");
  if (width % groups == 0) return {};
  return error(StatusCode::shape_mismatch, "num_groups: %lld does not divide C = %lld", static_cast<long long>(groups),
               static_cast<long long>(width));
}

}  // namespace

Status check(const NormLinearForward& a) {
  return first_error({check_groups(a.num_groups, a.x.size[1]), with_inner(a, a.x, kCheck),
                      check_rows("linear_weight", a.linear_weight), check_rows("out", a.out)});
}

size_t workspace_bytes(const NormLinearForward& a) {
  return ForwardParts(a).bytes;
}

Status run(const NormLinearForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const ForwardParts parts(a, workspace.data);
  const auto run_norm = [&](const auto& norm) { return run(norm, parts.norm, stream); };
  if (Status s = with_inner(a, parts.y, run_norm); !s.ok()) return s;
  if (Status s = fill_bias_part(a.linear_bias, parts.bias, stream); !s.ok()) return s;
  return gemm({.a = parts.y, .b = a.linear_weight, .c = a.out, .bias = parts.bias, .transpose_b = true}, parts.product,
              stream);
}

Status check(const NormLinearBackward& a) {
  if (!a.dx && !a.dgate && !a.dresidual && !a.dweight && !a.dbias && !a.dlinear_weight && !a.dlinear_bias)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  // The norm's own rules, with an output that is always there.
  const Tensor any = a.x ? a.x : a.residual_out;
  return first_error({check_groups(a.num_groups, a.linear_weight.size[1]), with_inner(a, any, any, kCheck),
                      check_rows("linear_weight", a.linear_weight), check_rows("dout", a.dout),
                      check_weight_gradient("dlinear_weight", a.dlinear_weight, a.linear_weight.dtype)});
}

size_t workspace_bytes(const NormLinearBackward& a) {
  return BackwardParts(a).bytes;
}

Status run(const NormLinearBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const BackwardParts parts(a, workspace.data);
  // For y alone any dy will do: that of the workspace, as it is, enters nothing that is written.
  if (parts.needs_dy)
    if (Status s = gemm({.a = a.dout, .b = a.linear_weight, .c = parts.dy}, parts.product, stream); !s.ok()) return s;
  const auto run_norm = [&](const auto& norm) { return run(norm, parts.norm, stream); };
  if (parts.runs_norm)
    if (Status s = with_inner(a, parts.dy, parts.y, run_norm); !s.ok()) return s;
  if (a.dlinear_weight) {
    const Gemm product{
        .a = a.dout, .b = parts.y, .c = a.dlinear_weight, .transpose_a = true, .accumulate = a.accumulate};
    if (Status s = gemm(product, parts.product, stream); !s.ok()) return s;
  }
  return a.dlinear_bias ? sum_columns(a.dout, a.dlinear_bias, parts.partials, stream) : Status{};
}

}  // namespace fla
