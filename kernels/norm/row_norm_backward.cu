// Row norms, backward: the choice of mapping, and the second stage of the parameter gradients.
#include "norm/row_norm_backward.cuh"

#include "common/column_sum.cuh"
#include "common/workspace.h"
#include "norm/row_norm.h"

namespace fla::detail {

extern template Status row_norm_backward_lanes<float, float>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_lanes<f16, f16>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_lanes<bf16, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_lanes<float, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_ring<float, float>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_ring<f16, f16>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_ring<bf16, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
extern template Status row_norm_backward_ring<float, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);

namespace {

// The fast forms know these dtypes: u and what comes with it, dy and dx. They take a gate or the gradient of
// residual_out, not both, and a gate with u and dy of one dtype.
bool streams_are_known(const RowNormBackward& a) {
  const DType u = a.u.dtype, y = a.dy.dtype;
  if (a.gate) return u == y && a.gate.dtype == u && !a.dresidual_out;
  return (u == y || (u == DType::f32 && y == DType::bf16)) && (!a.dresidual_out || a.dresidual_out.dtype == u);
}

// Whether the rows of every input can be numbered without a division: one group, or groups that step evenly.
bool flat(const RowNormBackward& a) {
  const int64_t g = row_extent(a.u).g;
  if (g == 1) return true;
  for (const Tensor* t : {&a.u, &a.gate, &a.dy, &a.dresidual_out})
    if (!groups_collapse(row_operand(*t), g)) return false;
  return groups_collapse(row_operand(a.rstd, true), g) && groups_collapse(row_operand(a.mean, true), g);
}

struct Problem {
  RowExtent extent;
  int64_t rows = 0;
  int64_t parameter_groups = 1;
  BackwardPlan plan;
  int64_t partial_rows = 1;  // of sums over all columns of all groups of parameters
  int64_t width = 1;         // elements of a chunk
  bool aligned = false;      // vectors of eight elements may be used
};

Problem plan(const RowNormBackward& a) {
  Problem p;
  p.extent = row_extent(a.u);
  p.rows = p.extent.m * p.extent.g;
  p.parameter_groups = a.options.per_group && p.extent.g > 0 ? p.extent.g : 1;
  const int64_t u_bytes = size_of(a.u.dtype), y_bytes = size_of(a.dy.dtype);
  p.width = 16 / (u_bytes > y_bytes ? u_bytes : y_bytes);
  // The mapping is decided by the inputs alone: which gradients are asked for must not change the bits of any.
  const bool inputs_allow = p.extent.n % p.width == 0 &&
                            all_rows_allow(p.width, a.u, a.gate, a.dy, a.dresidual_out, a.weight, a.bias);
  p.aligned = p.extent.n % 8 == 0 && all_rows_allow(8, a.u, a.gate, a.dy, a.dresidual_out, a.weight, a.bias, a.dx,
                                                    a.dgate, a.dresidual, a.y);
  if (streams_are_known(a) && inputs_allow) {
    const bool third = a.gate || a.dresidual_out;
    const int64_t row_bytes = p.extent.n * (u_bytes + y_bytes + (third ? u_bytes : 0));
    const bool bulk = flat(a) && rows_allow(a.u, 16 / u_bytes) && rows_allow(a.dy, 16 / y_bytes) &&
                      rows_allow(a.gate, 16 / u_bytes) && rows_allow(a.dresidual_out, 16 / u_bytes) &&
                      p.extent.n * y_bytes % 16 == 0;
    p.plan = plan_row_backward({.rows = p.rows,
                                .chunks = p.extent.n / p.width,
                                .width = p.width,
                                .row_bytes = row_bytes,
                                .parameter_groups = p.parameter_groups,
                                .bulk = bulk,
                                .centred = a.options.centred,
                                .gated = static_cast<bool>(a.gate),
                                .third = third,
                                .bias = static_cast<bool>(a.bias)});
  } else {
    p.plan = streamed_row_backward(p.rows / p.parameter_groups, p.extent.n * p.parameter_groups);
  }
  p.partial_rows = p.plan.parts * p.plan.sums_per_part /
                   (p.plan.unit == RowUnit::streamed ? 1 : p.parameter_groups);
  return p;
}

size_t partial_bytes(const Problem& p) {
  return align_workspace(static_cast<size_t>(p.partial_rows * p.parameter_groups * p.extent.n) * sizeof(float));
}

template <class U, class Y>
Status run_typed(const BackwardArgs& args, const BackwardPlan& plan, int sums, Stream stream) {
  return plan.unit == RowUnit::lanes ? row_norm_backward_lanes<U, Y>(args, plan, sums, stream)
                                     : row_norm_backward_ring<U, Y>(args, plan, sums, stream);
}

bool asks_for_rows(const BackwardArgs& a) { return a.dx.data || a.dgate.data || a.dresidual.data || a.y.data; }
bool asks_for_columns(const BackwardArgs& a) { return a.dweight_partials || a.dbias_partials; }

// Takes the outputs that the fast forms cannot write (another dtype, unaligned, unevenly spaced) out of `fast`, which
// numbers its rows evenly where the inputs allow, and returns them with the operands as they came.
BackwardArgs split_outputs(BackwardArgs& fast, const BackwardArgs& original, const Problem& p, const RowNormBackward& a) {
  BackwardArgs rest = original;
  rest.dweight_partials = rest.dbias_partials = nullptr;
  const bool evenly = fast.grid.groups == 1 && original.grid.groups > 1;
  auto take = [&](const Tensor& t, DType dtype, RowOperand& in_fast, RowOperand& in_rest) {
    const bool even = !evenly || groups_collapse(in_rest, original.grid.groups);
    if (t.dtype == dtype && rows_allow(t, p.width) && even) in_rest = {};
    else in_fast = {};
  };
  const DType u = a.u.dtype, y = a.dy.dtype;
  take(a.dx, y, fast.dx, rest.dx);
  take(a.dgate, u, fast.dgate, rest.dgate);
  take(a.dresidual, u, fast.dresidual, rest.dresidual);
  take(a.y, y, fast.y, rest.y);
  return rest;
}

Status run_streamed(const BackwardArgs& args, bool aligned, Stream stream) {
  // Column sums first: dx may be written over dy.
  if (asks_for_columns(args))
    if (Status s = row_norm_backward_columns(args, aligned, stream); !s.ok()) return s;
  return asks_for_rows(args) ? row_norm_backward_rows(args, aligned, stream) : Status{};
}

// `args` numbers rows evenly where the inputs allow, `original` does not.
Status run_problem(BackwardArgs args, const BackwardArgs& original, const Problem& p, const RowNormBackward& a,
                   Stream stream) {
  if (p.plan.unit == RowUnit::streamed) return run_streamed(original, p.aligned, stream);
  // First, because dx may be written over dy.
  if (const BackwardArgs rest = split_outputs(args, original, p, a); asks_for_rows(rest))
    if (Status s = row_norm_backward_rows(rest, p.aligned, stream); !s.ok()) return s;
  if (!asks_for_rows(args) && !asks_for_columns(args)) return {};
  const int sums = a.dbias ? 2 : a.weight || a.bias ? 1 : 0;
  if (a.u.dtype == DType::f16) return run_typed<f16, f16>(args, p.plan, sums, stream);
  if (a.u.dtype == DType::bf16) return run_typed<bf16, bf16>(args, p.plan, sums, stream);
  if (a.dy.dtype == DType::f32) return run_typed<float, float>(args, p.plan, sums, stream);
  return run_typed<float, bf16>(args, p.plan, sums, stream);
}

}  // namespace

size_t workspace_bytes(const RowNormBackward& a) {
  const Problem p = plan(a);
  if (p.rows == 0) return 0;
  return partial_bytes(p) * (static_cast<size_t>(static_cast<bool>(a.dweight)) + static_cast<size_t>(static_cast<bool>(a.dbias)));
}

Status run(const RowNormBackward& a, Workspace workspace, Stream stream) {
  const Problem p = plan(a);
  const auto target = [&](const float* partials, const Tensor& out) { return column_target(partials, out, a.accumulate); };
  if (p.rows == 0) return finish_columns({{target(nullptr, a.dweight), target(nullptr, a.dbias)}}, 0, stream);
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;

  BackwardArgs args;
  args.u = row_operand(a.u);
  args.gate = row_operand(a.gate);
  args.dy = row_operand(a.dy);
  args.dresidual_out = row_operand(a.dresidual_out);
  args.mean = row_operand(a.mean, true);
  args.rstd = row_operand(a.rstd, true);
  args.dx = row_operand(a.dx);
  args.dgate = row_operand(a.dgate);
  args.dresidual = row_operand(a.dresidual);
  args.y = row_operand(a.y);
  args.weight = any_float(a.weight);
  args.bias = any_float(a.bias);
  args.weight_stride = a.weight.rank == 2 ? a.weight.stride[0] : 0;
  args.bias_stride = a.bias.rank == 2 ? a.bias.stride[0] : 0;
  args.parameter_groups = static_cast<int32_t>(p.parameter_groups);
  args.columns = static_cast<int32_t>(p.extent.n);
  args.share = a.options.sum ? 1.0f : 1.0f / static_cast<float>(p.extent.n);
  args.weight_offset = a.options.weight_offset;
  args.normalised = a.normalised;
  args.centred = a.options.centred;
  args.gate_before = a.options.gate_before;
  args.swish = a.options.swish;
  args.parts = p.plan.parts;
  auto* partials = static_cast<char*>(workspace.data);
  if (a.dweight) {
    args.dweight_partials = reinterpret_cast<float*>(partials);
    partials += partial_bytes(p);
  }
  if (a.dbias) args.dbias_partials = reinterpret_cast<float*>(partials);

  args.grid = {p.rows, static_cast<uint32_t>(p.extent.g)};
  BackwardArgs even = args;
  if (p.extent.g > 1 && flat(a)) {
    even.grid.groups = 1;
    for (RowOperand* o : {&even.u, &even.gate, &even.dy, &even.dresidual_out, &even.mean, &even.rstd, &even.dx,
                          &even.dgate, &even.dresidual, &even.y})
      collapse_groups(*o);
  }
  if (Status s = run_problem(even, args, p, a, stream); !s.ok()) return s;
  return finish_columns({{target(args.dweight_partials, a.dweight), target(args.dbias_partials, a.dbias)}}, p.partial_rows, stream);
}

}  // namespace fla::detail
