// rms_norm_fp8 and rms_norm_gated_fp8: which calls are one kernel (row_norm_fp8.cuh), and the two calls that others are.
// In 16 bits: 3 bytes an element (x in, codes out), 5 with a gate, 7 with a residual and its sum.
#include "common/workspace.h"
#include "fla/validate.h"
#include "norm/row_norm_fp8.cuh"
#include "quantize/quantize.h"

namespace fla {

using namespace detail;

namespace {

RmsNormGatedForward norm_of(const RmsNormFp8Forward& a, const Tensor& y) {
  return {.x = a.x, .residual = a.residual, .gate = a.gate, .weight = a.weight, .bias = {}, .y = y,
          .residual_out = a.residual_out, .mean = {}, .rstd = {}, .eps = a.eps, .weight_offset = a.weight_offset,
          .activation = a.activation, .gate_order = a.gate_order, .weight_per_group = a.weight_per_group};
}

// The call as one kernel takes it.
struct Fused {
  NormFp8Args args;
  RowPlan plan;
  bool possible = false;
};

Fused fuse(const RmsNormFp8Forward& a) {
  RowNormForward norm{.x = a.x, .residual = a.residual, .gate = a.gate, .weight = a.weight, .bias = {}, .y = a.y,
                      .residual_out = a.residual_out, .mean = {}, .rstd = {}, .eps = a.eps, .options = {}};
  norm.y.dtype = a.x.dtype;
  norm.options = {.swish = a.activation == GateActivation::swish, .gate_before = a.gate_order == GateOrder::before,
                  .per_group = a.weight_per_group, .weight_offset = a.weight_offset};
  const Prepared p = prepare(norm);
  const auto [m, g, n] = row_extent(a.x);
  Fused f{.args = {.norm = p.args, .out = fp8_rows(a.q, a.scale, a.scaling)}, .plan = p.plan};
  Fp8Rows& out = f.args.out;
  if (p.form != Form::plain) f.args.no_bias = 0.0f;
  const bool one_row = g == 1 || out.per_block;
  bool same_steps = true;
  if (g > 1 && p.args.grid.groups == 1) {  // rows are numbered through: codes and scales too, then
    same_steps = groups_collapse(out.q, g) && groups_collapse(out.scale, g);
    collapse_groups(out.q);
    collapse_groups(out.scale);
  }
  const bool same_dtype = !p.args.second.data || p.args.second.data.dtype == a.x.dtype;
  f.possible = !p.empty && size_of(a.x.dtype) == 2 && p.plan.unit != RowUnit::streamed && p.plan.shared_vectors == 0 &&
               codes_allow_vectors(a.q) && one_row && same_steps && same_dtype;
  return f;
}

template <class T>
Status launch_fused(Fused& f, Stream stream) {
  return f.args.norm.second.data ? launch_norm_fp8<T, T>(f.args, f.plan, stream)
                                 : launch_norm_fp8<T, NoSecond>(f.args, f.plan, stream);
}

}  // namespace

Status check(const RmsNormFp8Forward& a) {
  return first_error({check(norm_of(a, a.y)), check_row_strides({{"q", a.q}, {"scale", a.scale}}),
                      check_fp8_rows("x", a.x, a.scaling)});
}

size_t workspace_bytes(const RmsNormFp8Forward& a) {
  if (a.y || fuse(a).possible) return 0;
  return align_workspace(static_cast<size_t>(count(a.x) * size_of(a.x.dtype)));
}

Status run(const RmsNormFp8Forward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  Fused f = fuse(a);
  if (f.possible) return a.x.dtype == DType::f16 ? launch_fused<f16>(f, stream) : launch_fused<bf16>(f, stream);
  if (Status s = check_workspace(workspace, a.y ? 0 : workspace_bytes(a)); !s.ok()) return s;
  const auto [m, g, n] = row_extent(a.x);
  const Tensor y = a.y ? a.y : dense(workspace.data, a.x.dtype, {m, g, n});
  if (Status s = run(norm_of(a, y), {}, stream); !s.ok()) return s;
  return run(QuantizeFp8Forward{.x = y, .q = a.q, .scale = a.scale, .scaling = a.scaling}, {}, stream);
}

}  // namespace fla
