// RMS norm, backward: validation, the choice of mapping, and the second stage of the parameter gradients.
#include "norm/rms_norm_backward.cuh"

#include "common/column_sum.cuh"
#include "common/workspace.h"
#include "fla/norm.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

const Tensor& stored_rows(const RmsNormBackward& a) { return a.x ? a.x : a.residual_out; }

// The fast forms know these pairs of dtypes: u and the residual gradients, dy and dx.
bool pair_is_known(const RmsNormBackward& a) {
  const DType u = stored_rows(a).dtype, y = a.dy.dtype;
  return (u == y || (u == DType::f32 && y == DType::bf16)) && (!a.dresidual_out || a.dresidual_out.dtype == u);
}

// Whether the rows of every input can be numbered without a division: one group, or parameters of their own for each
// (which are then problems of their own), or groups that step evenly.
bool flat(const RmsNormBackward& a) {
  const int64_t g = row_extent(stored_rows(a)).g;
  if (g == 1 || a.weight_per_group) return true;
  for (const Tensor* t : {&stored_rows(a), &a.dy, &a.dresidual_out})
    if (!groups_collapse(row_operand(*t), g)) return false;
  return groups_collapse(row_operand(a.rstd, true), g);
}

struct Problem {
  RowExtent extent;
  int64_t problems = 1;  // groups with parameters of their own
  int64_t rows = 0;      // of one problem
  BackwardPlan plan;
  int64_t width = 1;     // elements of a chunk
  bool aligned = false;  // vectors of eight elements may be used
};

Problem plan(const RmsNormBackward& a) {
  Problem p;
  const Tensor& u = stored_rows(a);
  p.extent = row_extent(u);
  p.problems = a.weight_per_group ? p.extent.g : 1;
  p.rows = p.extent.m * (p.extent.g / (p.problems > 0 ? p.problems : 1));
  const int64_t u_bytes = size_of(u.dtype), y_bytes = size_of(a.dy.dtype);
  const int64_t width = 16 / (u_bytes > y_bytes ? u_bytes : y_bytes);
  // The mapping is decided by the inputs alone: which gradients are asked for must not change the bits of any.
  const bool inputs_allow = p.extent.n % width == 0 && all_rows_allow(width, u, a.dy, a.dresidual_out, a.weight, a.bias);
  p.aligned = p.extent.n % 8 == 0 && all_rows_allow(8, u, a.dy, a.dresidual_out, a.weight, a.bias, a.dx, a.dresidual, a.y);
  p.width = width;
  if (!pair_is_known(a) || !inputs_allow) {
    p.plan = {.threads = 256, .parts = parts_for(p.rows, 1, 264)};
    return p;
  }
  const int64_t row_bytes = p.extent.n * (u_bytes + y_bytes + (a.dresidual_out ? u_bytes : 0));
  const bool bulk = flat(a) && rows_allow(u, 16 / u_bytes) && rows_allow(a.dy, 16 / y_bytes) && rows_allow(a.dresidual_out, 16 / u_bytes) &&
                    p.extent.n * y_bytes % 16 == 0;
  p.plan = plan_row_backward(p.rows, p.extent.n / width, row_bytes, bulk);
  return p;
}

size_t partial_bytes(const Problem& p) {
  return align_workspace(static_cast<size_t>(p.plan.parts * p.problems * p.extent.n) * sizeof(float));
}

template <class U, class Y>
Status run_typed(const BackwardArgs& args, const BackwardPlan& plan, bool with_bias, Stream stream) {
  return plan.unit == RowUnit::lanes ? rms_norm_backward_lanes<U, Y>(args, plan, with_bias, stream)
                                     : rms_norm_backward_ring<U, Y>(args, plan, with_bias, stream);
}

bool asks_for_anything(const BackwardArgs& a) {
  return a.dx.data || a.dresidual.data || a.y.data || a.dweight_partials || a.dbias_partials;
}

// Takes the outputs that the fast forms cannot write (another dtype, unaligned, unevenly spaced) out of `fast`, which
// numbers its rows evenly where the inputs allow, and returns them with the operands as they came.
BackwardArgs split_outputs(BackwardArgs& fast, const BackwardArgs& original, const Problem& p, const RmsNormBackward& a) {
  BackwardArgs rest = original;
  rest.dweight_partials = rest.dbias_partials = nullptr;
  const bool evenly = fast.grid.groups == 1 && original.grid.groups > 1;
  auto take = [&](const Tensor& t, DType dtype, RowOperand& in_fast, RowOperand& in_rest) {
    const bool even = !evenly || groups_collapse(in_rest, original.grid.groups);
    if (t.dtype == dtype && rows_allow(t, p.width) && even) in_rest = {};
    else in_fast = {};
  };
  const DType u = stored_rows(a).dtype, y = a.dy.dtype;
  take(a.dx, y, fast.dx, rest.dx);
  take(a.dresidual, u, fast.dresidual, rest.dresidual);
  take(a.y, y, fast.y, rest.y);
  return rest;
}

// `args` numbers rows evenly where the inputs allow, `original` does not.
Status run_problem(BackwardArgs args, const BackwardArgs& original, const Problem& p, const RmsNormBackward& a,
                   Stream stream) {
  if (p.plan.unit == RowUnit::streamed) return rms_norm_backward_streamed(original, p.aligned, stream);
  // First, because dx may be written over dy.
  if (const BackwardArgs rest = split_outputs(args, original, p, a); asks_for_anything(rest))
    if (Status s = rms_norm_backward_streamed(rest, p.aligned, stream); !s.ok()) return s;
  if (!asks_for_anything(args)) return {};
  const bool with_bias = args.dbias_partials && p.plan.threads <= 512;
  if (args.dbias_partials && !with_bias) {
    // The longest rows have registers for one set of column sums only.
    if (Status s = rms_norm_backward_bias(args, stream); !s.ok()) return s;
  }
  const DType u = stored_rows(a).dtype;
  if (u == DType::f16) return run_typed<f16, f16>(args, p.plan, with_bias, stream);
  if (u == DType::bf16) return run_typed<bf16, bf16>(args, p.plan, with_bias, stream);
  if (a.dy.dtype == DType::f32) return run_typed<float, float>(args, p.plan, with_bias, stream);
  return run_typed<float, bf16>(args, p.plan, with_bias, stream);
}

// Narrows every operand to group g.
void select_group(BackwardArgs& args, const RmsNormBackward& a, int64_t g, int64_t n) {
  auto shift = [g](RowOperand& operand, int64_t stride) {
    if (operand.data) operand.data.data = static_cast<char*>(operand.data.data) + g * stride * size_of(operand.data.dtype);
    operand.stride_g = 0;
  };
  for (RowOperand* o : {&args.u, &args.dy, &args.dresidual_out, &args.rstd, &args.dx, &args.dresidual, &args.y})
    shift(*o, o->stride_g);
  auto parameter = [g](AnyFloat& p, const Tensor& t) {
    if (p) p.data = static_cast<char*>(p.data) + g * t.stride[0] * size_of(p.dtype);
  };
  parameter(args.weight, a.weight);
  parameter(args.bias, a.bias);
  if (args.dweight_partials) args.dweight_partials += g * n;
  if (args.dbias_partials) args.dbias_partials += g * n;
}

}  // namespace

Status check(const RmsNormBackward& a) {
  if (static_cast<bool>(a.x) == static_cast<bool>(a.residual_out))
    return error(StatusCode::invalid_argument, "x: exactly one of x and residual_out must be given");
  if (!a.dx && !a.dresidual && !a.dweight && !a.dbias && !a.y)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  const RowExtent extent = row_extent(stored_rows(a));
  if (extent.n < 1) return error(StatusCode::unsupported_shape, "x: rows of N = 0 elements");
  if (extent.n > 0x7fffffff - 65536) return error(StatusCode::unsupported_shape, "x: rows of 2^31 elements");
  return {};
}

size_t workspace_bytes(const RmsNormBackward& a) {
  const Problem p = plan(a);
  if (p.rows == 0) return 0;
  return partial_bytes(p) * (static_cast<size_t>(static_cast<bool>(a.dweight)) + static_cast<size_t>(static_cast<bool>(a.dbias)));
}

Status run(const RmsNormBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const Problem p = plan(a);
  const int64_t columns = p.problems * p.extent.n;
  if (p.rows == 0) return finish_columns(column_target(nullptr, a.dweight), column_target(nullptr, a.dbias), 0, columns, stream);
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;

  BackwardArgs args;
  args.u = row_operand(stored_rows(a));
  args.dy = row_operand(a.dy);
  args.dresidual_out = row_operand(a.dresidual_out);
  args.rstd = row_operand(a.rstd, true);
  args.dx = row_operand(a.dx);
  args.dresidual = row_operand(a.dresidual);
  args.y = row_operand(a.y);
  args.weight = any_float(a.weight);
  args.bias = any_float(a.bias);
  args.columns = static_cast<int32_t>(p.extent.n);
  args.inverse_columns = 1.0f / static_cast<float>(p.extent.n);
  args.parts = p.plan.parts;
  args.partial_stride = columns;
  auto* partials = static_cast<char*>(workspace.data);
  if (a.dweight) {
    args.dweight_partials = reinterpret_cast<float*>(partials);
    partials += partial_bytes(p);
  }
  if (a.dbias) args.dbias_partials = reinterpret_cast<float*>(partials);

  if (p.problems > 1) {
    args.grid = {p.rows, 1};
    for (int64_t g = 0; g < p.problems; ++g) {
      BackwardArgs group = args;
      select_group(group, a, g, p.extent.n);
      if (Status s = run_problem(group, group, p, a, stream); !s.ok()) return s;
    }
  } else {
    const int64_t g = p.extent.g;
    args.grid = {p.rows, static_cast<uint32_t>(g)};
    BackwardArgs even = args;
    if (g > 1 && flat(a)) {
      even.grid.groups = 1;
      for (RowOperand* o : {&even.u, &even.dy, &even.dresidual_out, &even.rstd, &even.dx, &even.dresidual, &even.y})
        collapse_groups(*o);
    }
    if (Status s = run_problem(even, args, p, a, stream); !s.ok()) return s;
  }
  return finish_columns(column_target(args.dweight_partials, a.dweight), column_target(args.dbias_partials, a.dbias),
                        args.parts, columns, stream);
}

}  // namespace fla
