// Row norms, forward: which kernel takes a call, and the one for calls that no other takes.
#include "common/dispatch.h"
#include "common/workspace.h"
#include "norm/row_norm.h"
#include "norm/row_norm_forward.cuh"

namespace fla::detail {

extern template Status row_norm_forward<float>(ForwardArgs, Form, const RowPlan&, Stream);
extern template Status row_norm_forward<f16>(ForwardArgs, Form, const RowPlan&, Stream);
extern template Status row_norm_forward<bf16>(ForwardArgs, Form, const RowPlan&, Stream);
extern template Status row_norm_forward_pair<float>(ForwardPair, const RowPlan&, Stream);
extern template Status row_norm_forward_pair<f16>(ForwardPair, const RowPlan&, Stream);
extern template Status row_norm_forward_pair<bf16>(ForwardPair, const RowPlan&, Stream);

namespace {

// Any dtypes, any alignment, any length, every stream: the row is read twice, or three times where it has a mean. Each
// thread overwrites only what it read itself, so the in-place forms hold here too.
template <int kWidth>
FLA_KERNEL void FLA_BOUNDS(512, 2) row_norm_forward_streamed(FLA_PARAMETERS ForwardArgs a) {
  wait_for_predecessor();
  auto* shared = shared_memory<BlockShared>();
  const int first = static_cast<int>(threadIdx.x) * kWidth, step = static_cast<int>(blockDim.x) * kWidth;
  const RowAt row = a.grid.at(blockIdx.x);
  const int64_t x_offset = row.in(a.x), second_offset = row.in(a.second);
  auto read = [&](int column, float (&u)[kWidth]) {
    load_floats(a.x.data, x_offset + column, u);
    if (a.second.data) {
      float second[kWidth];
      load_floats(a.second.data, second_offset + column, second);
      join<false>(a, u, second);
    }
  };
  float sum = 0.0f;
  FLA_UNROLL_BY(2)
  for (int column = first; column < a.columns; column += step) {
    float u[kWidth];
    read(column, u);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) sum = a.centred ? sum + u[e] : fmaf(u[e], u[e], sum);
  }
  sum = block_sum(sum, shared->slots[0]);
  RowStatistic s;
  if (a.centred) {
    s.mean = sum * a.share;
    sum = 0.0f;
    for (int column = first; column < a.columns; column += step) {
      float u[kWidth];
      read(column, u);
      add_deviations(u, s.mean, sum);
    }
    sum = block_sum(sum, shared->slots[1]);
  }
  s.rstd = math::rsqrt(fmaf(sum, a.share, a.eps));
  if (threadIdx.x == 0) store_statistic<true>(a, row, s);
  const int64_t gate_offset = row.in(a.gate);
  const bool gated = static_cast<bool>(a.gate.data);
  for (int column = first; column < a.columns; column += step) {
    float u[kWidth], gate[kWidth];
    Parameters<kWidth> p;
    read(column, u);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) p.weight[e] = 1.0f, p.bias[e] = 0.0f;
    if (a.weight) load_floats(a.weight, row.g * a.weight_stride + column, p.weight);
    if (a.bias) load_floats(a.bias, row.g * a.bias_stride + column, p.bias);
    FLA_UNROLL
    for (float& w : p.weight) w += a.weight_offset;
    if (gated) load_floats(a.gate.data, gate_offset + column, gate);
    write_vector<float, void, Form::layer, true>(a, u, p, gate, gated, s, row, column);
  }
}

Status launch_streamed(const ForwardArgs& a, bool aligned, Stream stream) {
  const Launch shape{.grid = a.grid.rows,
                     .block = threads_for_row(divide_up(a.columns, aligned ? 8 : 1), 512),
                     .shared_bytes = sizeof(BlockShared),
                     .stream = stream};
  if (aligned) return launch<&row_norm_forward_streamed<8>>(shape, a);
  return launch<&row_norm_forward_streamed<1>>(shape, a);
}

// Rows are numbered without a division where every operand steps evenly from group to group.
void collapse(ForwardArgs& a) {
  const int64_t g = a.grid.groups;
  RowOperand* operands[] = {&a.x, &a.second, &a.gate, &a.y, &a.residual_out, &a.mean, &a.rstd};
  bool even = a.weight_stride == 0 && a.bias_stride == 0;
  for (const RowOperand* o : operands) even = even && groups_collapse(*o, g);
  if (!even) return;
  a.grid.groups = 1;
  for (RowOperand* o : operands) collapse_groups(*o);
}

Form form_of(const ForwardArgs& a, const RowNormForward& p) {
  const bool gated = static_cast<bool>(a.gate.data);
  if (a.centred) return gated ? Form::gated_layer : Form::layer;
  if (gated) return Form::gated_rms;
  const bool more = a.second.data || a.bias || a.residual_out.data || a.grid.groups != 1 || p.y.dtype != p.x.dtype ||
                    a.weight_offset != 0;
  return more ? Form::rms : Form::plain;
}

}  // namespace

Prepared prepare(const RowNormForward& p) {
  Prepared result;
  ForwardArgs& a = result.args;
  const RowExtent extent = row_extent(p.x);
  result.empty = extent.m == 0 || extent.g == 0;
  // A gate before the norm joins x like a residual.
  const bool gate_joins = p.gate && p.options.gate_before;
  const Tensor& second = gate_joins ? p.gate : p.residual;
  const Tensor gate = gate_joins ? Tensor{} : p.gate;
  a.x = row_operand(p.x);
  a.second = row_operand(second);
  a.gate = row_operand(gate);
  a.y = row_operand(p.y);
  a.residual_out = row_operand(p.residual_out);
  a.mean = row_operand(p.mean, true);
  a.rstd = row_operand(p.rstd, true);
  a.weight = any_float(p.weight);
  a.bias = any_float(p.bias);
  a.weight_stride = p.weight.rank == 2 ? p.weight.stride[0] : 0;
  a.bias_stride = p.bias.rank == 2 ? p.bias.stride[0] : 0;
  a.columns = static_cast<int32_t>(extent.n);
  a.eps = p.eps;
  a.weight_offset = p.weight ? p.options.weight_offset : 0.0f;
  a.share = p.options.sum ? 1.0f : 1.0f / static_cast<float>(extent.n);
  a.centred = p.options.centred;
  a.second_is_gate = gate_joins;
  a.swish = p.options.swish;
  a.grid = {extent.m * extent.g, static_cast<uint32_t>(extent.g)};
  if (extent.g > 1) collapse(a);

  const DType x = result.dtype = p.x.dtype;
  const int64_t width = 16 / size_of(x);
  auto vectors_fit = [&](int64_t elements) {
    return extent.n % elements == 0 &&
           all_rows_allow(elements, p.x, p.residual, p.gate, p.weight, p.bias, p.y, p.residual_out);
  };
  auto known = [&](const Tensor& t) { return !t || t.dtype == DType::f32 || t.dtype == x; };
  result.form = form_of(a, p);
  result.aligned = vectors_fit(8);
  const bool parameters_known =
      known(p.weight) && known(p.bias) && (!p.weight || !p.bias || p.weight.dtype == p.bias.dtype);
  const bool gate_known = !gate || (gate.dtype == x && !second), sum_known = second || !p.residual_out;
  if (known(second) && parameters_known && gate_known && sum_known && vectors_fit(width))
    result.plan = plan_row_forward(extent.n / width, static_cast<bool>(second), result.form == Form::plain);
  return result;
}

namespace {

Status launch_prepared(const Prepared& p, Stream stream) {
  if (p.empty) return {};
  if (p.plan.unit == RowUnit::streamed) return launch_streamed(p.args, p.aligned, stream);
  return dispatch_float(p.dtype, [&](auto tag) {
    return row_norm_forward<typename decltype(tag)::type>(p.args, p.form, p.plan, stream);
  });
}

}  // namespace

Status run(const RowNormForward& p, Stream stream) { return launch_prepared(prepare(p), stream); }

Status run(const RowNormForward& first, const RowNormForward& second, Stream stream) {
  const Prepared a = prepare(first), b = prepare(second);
  const bool alike = a.dtype == b.dtype && a.args.weight.dtype == b.args.weight.dtype && a.plan == b.plan;
  if (a.empty || b.empty || !a.may_be_paired() || !b.may_be_paired() || !alike) {
    if (Status s = launch_prepared(a, stream); !s.ok()) return s;
    return launch_prepared(b, stream);
  }
  return dispatch_float(a.dtype, [&](auto tag) {
    return row_norm_forward_pair<typename decltype(tag)::type>({a.args, b.args}, a.plan, stream);
  });
}

}  // namespace fla::detail
