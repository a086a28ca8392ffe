// The public row norms, each lowered to the one problem that the kernels solve.
#include "common/workspace.h"
#include "fla/gated_norm.h"
#include "fla/l2_norm.h"
#include "fla/norm.h"
#include "fla/qk_norm.h"
#include "fla/validate.h"
#include "norm/row_norm.h"
#include "norm/row_operand.cuh"
#include "norm/row_plan.h"

namespace fla {
namespace {

using namespace detail;

template <class A>
concept Gated = requires(const A& a) { a.gate; };
template <class A>
concept Plain = requires(const A& a) { a.kind; };

template <NormKind kKind>
constexpr bool is_centred(const GatedNormForward<kKind>&) { return kKind == NormKind::layer; }
template <NormKind kKind>
constexpr bool is_centred(const GatedNormBackward<kKind>&) { return kKind == NormKind::layer; }
template <Plain A>
constexpr bool is_centred(const A& a) { return a.kind == NormKind::layer; }

template <class A>
RowNormOptions options_of(const A& a) {
  RowNormOptions o;
  o.centred = is_centred(a);
  o.per_group = a.weight_per_group;
  o.weight_offset = a.weight_offset;
  if constexpr (Gated<A>) {
    o.swish = a.activation == GateActivation::swish;
    o.gate_before = a.gate_order == GateOrder::before;
  }
  return o;
}

template <class A>
RowNormForward lower_forward(const A& a) {
  RowNormForward p{.x = a.x, .residual = a.residual, .gate = {}, .weight = a.weight, .bias = a.bias, .y = a.y,
                   .residual_out = a.residual_out, .mean = {}, .rstd = a.rstd, .eps = a.eps, .options = options_of(a)};
  if (p.options.centred) p.mean = a.mean;
  if constexpr (Gated<A>) {
    if (a.activation != GateActivation::none) p.gate = a.gate;
  }
  return p;
}
RowNormForward lower_forward(const L2NormForward& a) {
  RowNormForward p;
  p.x = a.x;
  p.y = a.y;
  p.rstd = a.rstd;
  p.eps = a.eps;
  p.options.sum = true;
  return p;
}

template <class A>
RowNormBackward lower_backward(const A& a) {
  RowNormBackward p;
  p.u = a.x ? a.x : a.residual_out;
  p.weight = a.weight;
  p.bias = a.bias;
  p.rstd = a.rstd;
  p.dy = a.dy;
  p.dresidual_out = a.dresidual_out;
  p.dx = a.dx;
  p.dresidual = a.dresidual;
  p.dweight = a.dweight;
  p.dbias = a.dbias;
  p.accumulate = a.accumulate;
  p.y = a.y;
  p.options = options_of(a);
  if (p.options.centred) p.mean = a.mean;
  if constexpr (Gated<A>) {
    if (a.activation != GateActivation::none) {
      p.gate = a.gate;
      p.dgate = a.dgate;
    }
  }
  return p;
}
RowNormBackward lower_backward(const L2NormBackward& a) {
  RowNormBackward p;
  p.u = a.y;
  p.normalised = true;
  p.rstd = a.rstd;
  p.dy = a.dy;
  p.dx = a.dx;
  p.options.sum = true;
  return p;
}

Status check_extent(const char* name, const Tensor& rows) {
  const auto [m, g, n] = row_extent(rows);
  if (g < 1) return error(StatusCode::unsupported_shape, "%s: G = 0 groups", name);
  if (m > kMostRows / g) return error(StatusCode::unsupported_shape, "%s: 2^32 rows or more", name);
  if (n >= 1 && n <= 0x7fffffff - 65536) return {};
  return error(StatusCode::unsupported_shape, n < 1 ? "%s: rows of N = 0 elements" : "%s: rows of 2^31 elements", name);
}

template <class A>
Status check_forward(const A& a) {
  if constexpr (Gated<A>) {
    if (a.gate && a.activation == GateActivation::none)
      return error(StatusCode::invalid_argument, "gate: given with activation none");
    if (a.residual && a.gate_order == GateOrder::before)
      return error(StatusCode::invalid_argument, "residual: given with gate_order before");
    if (Status s = check_row_strides({{"gate", a.gate}}); !s.ok()) return s;
  }
  if (a.residual_out && !a.residual && a.x.dtype == DType::f32)
    return error(StatusCode::unsupported_combination, "residual_out: without residual it would copy an f32 x");
  return first_error({check_row_strides({{"x", a.x}, {"residual", a.residual}, {"y", a.y}, {"residual_out", a.residual_out},
                                         {"mean", a.mean}, {"rstd", a.rstd}}),
                      check_extent("x", a.x)});
}

template <class A>
Status check_backward(const A& a) {
  if (static_cast<bool>(a.x) == static_cast<bool>(a.residual_out))
    return error(StatusCode::invalid_argument, "x: exactly one of x and residual_out must be given");
  bool asked = a.dx || a.dresidual || a.dweight || a.dbias || a.y;
  if constexpr (Gated<A>) {
    asked |= static_cast<bool>(a.dgate);
    if ((a.gate || a.dgate) && a.activation == GateActivation::none)
      return error(StatusCode::invalid_argument, "gate: given with activation none");
    if ((a.dresidual_out || a.dresidual) && a.gate_order == GateOrder::before)
      return error(StatusCode::invalid_argument, "dresidual: asked for with gate_order before");
    if (Status s = check_row_strides({{"gate", a.gate}, {"dgate", a.dgate}}); !s.ok()) return s;
  }
  if (!asked) return error(StatusCode::invalid_argument, "dx: no output is asked for");
  return first_error({check_row_strides({{"x", a.x}, {"residual_out", a.residual_out}, {"mean", a.mean}, {"rstd", a.rstd},
                                         {"dy", a.dy}, {"dresidual_out", a.dresidual_out}, {"dx", a.dx},
                                         {"dresidual", a.dresidual}, {"y", a.y}}),
                      check_extent("x", a.x ? a.x : a.residual_out)});
}

template <class A>
Status run_forward(const A& a, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(lower_forward(a), stream);
}
template <class A>
Status run_backward(const A& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(lower_backward(a), workspace, stream);
}

}  // namespace

template <NormKind kKind, bool kPerGroup>
Status check(const NormForward<kKind, kPerGroup>& a) { return check_forward(a); }
template <NormKind kKind, bool kPerGroup>
Status run(const NormForward<kKind, kPerGroup>& a, Workspace, Stream stream) { return run_forward(a, stream); }
template <NormKind kKind, bool kPerGroup>
Status check(const NormBackward<kKind, kPerGroup>& a) { return check_backward(a); }
template <NormKind kKind, bool kPerGroup>
size_t workspace_bytes(const NormBackward<kKind, kPerGroup>& a) { return workspace_bytes(lower_backward(a)); }
template <NormKind kKind, bool kPerGroup>
Status run(const NormBackward<kKind, kPerGroup>& a, Workspace w, Stream stream) { return run_backward(a, w, stream); }

template <NormKind kKind>
Status check(const GatedNormForward<kKind>& a) { return check_forward(a); }
template <NormKind kKind>
Status run(const GatedNormForward<kKind>& a, Workspace, Stream stream) { return run_forward(a, stream); }
template <NormKind kKind>
Status check(const GatedNormBackward<kKind>& a) { return check_backward(a); }
template <NormKind kKind>
size_t workspace_bytes(const GatedNormBackward<kKind>& a) { return workspace_bytes(lower_backward(a)); }
template <NormKind kKind>
Status run(const GatedNormBackward<kKind>& a, Workspace w, Stream stream) { return run_backward(a, w, stream); }

Status check(const QkNormForward& a) {
  return first_error({check_row_strides({{"q", a.q}, {"k", a.k}, {"q_out", a.q_out}, {"k_out", a.k_out}, {"q_rstd", a.q_rstd},
                                         {"k_rstd", a.k_rstd}}),
                      check_extent("q", a.q), check_extent("k", a.k)});
}
Status run(const QkNormForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(lower_forward(q_norm(a)), lower_forward(k_norm(a)), stream);
}
Status check(const QkNormBackward& a) {
  if (!a.dq && !a.dq_weight) return error(StatusCode::invalid_argument, "dq: no output is asked for");
  if (!a.dk && !a.dk_weight) return error(StatusCode::invalid_argument, "dk: no output is asked for");
  return first_error({check_row_strides({{"q", a.q}, {"k", a.k}, {"q_rstd", a.q_rstd}, {"k_rstd", a.k_rstd}, {"dq_out", a.dq_out},
                                         {"dk_out", a.dk_out}, {"dq", a.dq}, {"dk", a.dk}}),
                      check_extent("q", a.q), check_extent("k", a.k)});
}
size_t workspace_bytes(const QkNormBackward& a) {
  const size_t q = workspace_bytes(lower_backward(q_norm(a))), k = workspace_bytes(lower_backward(k_norm(a)));
  return q > k ? q : k;
}
Status run(const QkNormBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  if (Status s = run(lower_backward(q_norm(a)), workspace, stream); !s.ok()) return s;
  return run(lower_backward(k_norm(a)), workspace, stream);
}

Status check(const L2NormForward& a) {
  return first_error({check_row_strides({{"x", a.x}, {"y", a.y}, {"rstd", a.rstd}}), check_extent("x", a.x)});
}
Status run(const L2NormForward& a, Workspace, Stream stream) { return run_forward(a, stream); }
Status check(const L2NormBackward& a) {
  return first_error({check_row_strides({{"y", a.y}, {"rstd", a.rstd}, {"dy", a.dy}, {"dx", a.dx}}), check_extent("y", a.y)});
}
Status run(const L2NormBackward& a, Workspace w, Stream stream) { return run_backward(a, w, stream); }

template Status check(const LayerNormForward&);
template Status run(const LayerNormForward&, Workspace, Stream);
template Status check(const LayerNormBackward&);
template size_t workspace_bytes(const LayerNormBackward&);
template Status run(const LayerNormBackward&, Workspace, Stream);
template Status check(const RmsNormForward&);
template Status run(const RmsNormForward&, Workspace, Stream);
template Status check(const RmsNormBackward&);
template size_t workspace_bytes(const RmsNormBackward&);
template Status run(const RmsNormBackward&, Workspace, Stream);
template Status check(const GroupNormForward&);
template Status run(const GroupNormForward&, Workspace, Stream);
template Status check(const GroupNormBackward&);
template size_t workspace_bytes(const GroupNormBackward&);
template Status run(const GroupNormBackward&, Workspace, Stream);
template Status check(const LayerNormGatedForward&);
template Status run(const LayerNormGatedForward&, Workspace, Stream);
template Status check(const LayerNormGatedBackward&);
template size_t workspace_bytes(const LayerNormGatedBackward&);
template Status run(const LayerNormGatedBackward&, Workspace, Stream);
template Status check(const RmsNormGatedForward&);
template Status run(const RmsNormGatedForward&, Workspace, Stream);
template Status check(const RmsNormGatedBackward&);
template size_t workspace_bytes(const RmsNormGatedBackward&);
template Status run(const RmsNormGatedBackward&, Workspace, Stream);

}  // namespace fla
