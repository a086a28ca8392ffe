// Linear layers whose input is made on the way and not kept: gated units and norms in front of out = z W^T + b.
#pragma once

#include "fla/activation.h"
#include "fla/gated_norm.h"

namespace fla {

// out = z linear_weight^T + linear_bias with z = GLU(x, y), rounded to the dtype of x; the product is summed in fp32 and
// rounded once. z is not saved: backward makes it again. F inner width, O output width, M rows.
//
// Row strides are free and independent. Deterministic for a given device and library. Workspace: workspace_bytes(args),
// z (M F elements, dtype of x), linear_bias in the dtype of out where its own differs, and what the product may use
// (256 M O bytes, 32 MiB at most, none without a GPU), each rounded up to 256 bytes.
// Errors: as validation (status.h), naming the field; bad_stride for a weight whose rows overlap.
struct GluLinearForward {
  GatedUnit kind = GatedUnit::swiglu;
  Tensor x;              // [M, F] f32/f16/bf16: the gate
  Tensor y;              // [M, F] any float
  Tensor linear_weight;  // [O, F] dtype of x
  Tensor linear_bias;    // [O] any float, read in the dtype of out; optional
  Tensor out;            // [M, O] dtype of x
  GluParameters parameters;
};

template <class V>
void describe(V& v, GluLinearForward& a) {
  describe_parameters(v, a.kind, a.parameters);
  const Dim M = v.dim("M"), F = v.dim("F"), O = v.dim("O");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.input("linear_weight", a.linear_weight, {O, F}, {.like = &a.x});
  v.input("linear_bias", a.linear_bias, {O}, {.presence = Presence::optional});
  v.output("out", a.out, {M, O}, {.like = &a.x});
}

Status check(const GluLinearForward&);
size_t workspace_bytes(const GluLinearForward&);
Status run(const GluLinearForward&, Workspace, Stream);

// Backward:
//   dz = dout linear_weight                 rounded to the dtype of x
//   dx, dy, z = GLU backward of dz          one pass (activation.h); z as forward had it
//   dlinear_weight = dout^T z               = or += (accumulate); fp32 sums, one rounding
//   dlinear_bias = sum_rows dout            fp32, fixed order, rounded once
//
// Only the gradients whose pointers are set are computed, those of x and y first, so that they can be communicated while
// the weight's product runs; without dlinear_weight, z is not made and its product not run. M = 0 writes zeros.
// Workspace: M F elements of the dtype of x (dz, then z in its place), ceil(M / 64) O fp32 for dlinear_bias, and what the
// largest product may use, as forward. Errors as forward; invalid_argument when no output is asked for.
struct GluLinearBackward {
  GatedUnit kind = GatedUnit::swiglu;
  Tensor x, y, linear_weight;  // as forward
  Tensor dout;                 // [M, O] dtype of x
  Tensor dx, dy;               // [M, F] any float (normally x's and y's); may be exactly x and y
  Tensor dlinear_weight;       // [O, F] dtype of linear_weight or f32; f32 with accumulate
  Tensor dlinear_bias;         // [O] any float
  bool accumulate = false;     // add to dlinear_weight
  GluParameters parameters;
};

template <class V>
void describe(V& v, GluLinearBackward& a) {
  describe_parameters(v, a.kind, a.parameters);
  v.attribute("accumulate", a.accumulate);
  const Dim M = v.dim("M"), F = v.dim("F"), O = v.dim("O");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.input("linear_weight", a.linear_weight, {O, F}, {.like = &a.x});
  v.input("dout", a.dout, {M, O}, {.like = &a.x});
  v.output("dx", a.dx, {M, F}, {.presence = Presence::expected, .alias = &a.x});
  v.output("dy", a.dy, {M, F}, {.presence = Presence::expected, .alias = &a.y});
  detail::describe_gradient(v, "dlinear_weight", a.dlinear_weight, {O, F}, a.accumulate, {.presence = Presence::expected});
  v.output("dlinear_bias", a.dlinear_bias, {O}, {.presence = Presence::optional});
}

Status check(const GluLinearBackward&);
size_t workspace_bytes(const GluLinearBackward&);
Status run(const GluLinearBackward&, Workspace, Stream);

// out = y linear_weight^T + linear_bias with y the norm of x, or of x + residual, over each of num_groups equal
// parts of a row, with or without a gate (norm.h and gated_norm.h have the formulas, residual and prenorm
// included); y is rounded to the dtype of x, the product is summed in fp32 and rounded once. y is not saved:
// backward makes it again.
// C input width, O output width, M rows.
//
// One contract for five operators, told apart by fields: rms_norm_linear (the struct's defaults), layer_norm_linear
// (kind layer), group_norm_linear (kind layer, num_groups), rms_norm_gated_linear and layer_norm_gated_linear
// (activation swish; fla's eps is 1e-6 there).
//
// Row strides are free. Deterministic for a given device and library. Workspace: workspace_bytes(args), y (M C
// elements, dtype of x), linear_bias in the dtype of out where its own differs, and what the product may use
// (256 M O bytes, 32 MiB at most, none without a GPU), each rounded up to 256 bytes.
// Errors: as validation (status.h) and those of the norm, naming the field; null_pointer when the gate is missing
// though activation is not none; invalid_argument for a residual with gate_order before, and for a gate with
// activation none; shape_mismatch where num_groups does not divide C; bad_stride where rows of matrices overlap.
struct NormLinearForward {
  Tensor x;              // [M, C] f32/f16/bf16
  Tensor residual;       // [M, C] any float, optional; not with gate_order before
  Tensor gate;           // [M, C] any float; activation none: null
  Tensor weight, bias;   // [C] any float, optional
  Tensor linear_weight;  // [O, C] dtype of x
  Tensor linear_bias;    // [O] any float, read in the dtype of out; optional
  Tensor out;            // [M, O] dtype of x
  Tensor residual_out;   // [M, C] dtype of residual (f32 without one), optional; may be exactly residual
  Tensor mean;           // [M, num_groups] f32, saved for backward, optional; kind layer only
  Tensor rstd;           // [M, num_groups] f32, saved for backward, optional (null: inference)
  float eps = 1e-5f;     // >= 0, inside the root
  float weight_offset = 0;  // 1 for weights stored as their distance from one
  NormKind kind = NormKind::rms;
  GateActivation activation = GateActivation::none;
  GateOrder gate_order = GateOrder::after;
  int64_t num_groups = 1;
};

template <class V>
void describe(V& v, NormLinearForward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("weight_offset", a.weight_offset);
  v.option("kind", a.kind, kNormKinds);
  v.option("activation", a.activation, kGateActivations);
  v.option("gate_order", a.gate_order, kGateOrders);
  v.attribute("num_groups", a.num_groups, {.min = 1});
  const Dim M = v.dim("M"), C = v.dim("C"), O = v.dim("O");
  constexpr Rule wanted{.presence = Presence::expected}, extra{.presence = Presence::optional};
  constexpr Rule statistic{.presence = Presence::expected, .types = kF32};
  v.input("x", a.x, {M, C});
  v.input("residual", a.residual, {M, C}, extra);
  if (a.activation != GateActivation::none) v.input("gate", a.gate, {M, C});
  v.input("weight", a.weight, {C}, wanted);
  v.input("bias", a.bias, {C}, extra);
  v.input("linear_weight", a.linear_weight, {O, C}, {.like = &a.x});
  v.input("linear_bias", a.linear_bias, {O}, extra);
  v.output("out", a.out, {M, O}, {.like = &a.x});
  v.saved("residual_out", a.residual_out, {M, C},
          a.residual ? Rule{.presence = Presence::expected, .like = &a.residual, .alias = &a.residual}
                     : Rule{.presence = Presence::optional, .types = kF32});
  if (a.kind == NormKind::layer) v.saved("mean", a.mean, {M, a.num_groups}, statistic);
  v.saved("rstd", a.rstd, {M, a.num_groups}, statistic);
}

Status check(const NormLinearForward&);
size_t workspace_bytes(const NormLinearForward&);
Status run(const NormLinearForward&, Workspace, Stream);

// Backward:
//   dy = dout linear_weight                                       rounded to the dtype of linear_weight
//   dx, dgate, dresidual, dweight, dbias, y = norm backward of dy, one pass (gated_norm.h); y from u as stored
//   dlinear_weight = dout^T y                                     = or += (accumulate); fp32 sums, one rounding
//   dlinear_bias = sum_rows dout                                  fp32, fixed order, rounded once
//
// y is all that forward's product read: weight, bias and gate included. Only the gradients whose pointers are set
// are computed, those of the norm first, so that they can be communicated while the weight's product runs. M = 0
// writes zeros to the parameters' gradients.
// Workspace: 2 M C elements of the dtype of linear_weight (dy; y where dlinear_weight is asked for), that of the norm's
// backward (norm.h), ceil(M / 64) O fp32 for dlinear_bias, and what the largest product may use, as forward.
// Errors as forward; invalid_argument when no output is asked for, and those of the norm's backward.
struct NormLinearBackward {
  Tensor x;              // [M, C] the normalised rows; null when residual_out is given
  Tensor residual_out;   // [M, C] the stored sum; null when x is given
  Tensor gate;           // as forward
  Tensor weight, bias;   // as forward
  Tensor mean;           // [M, num_groups] f32, from forward; kind layer only
  Tensor rstd;           // [M, num_groups] f32, from forward
  Tensor linear_weight;  // as forward
  Tensor dout;           // [M, O] dtype of linear_weight
  Tensor dresidual_out;  // [M, C] any float, optional: gradient of residual_out (prenorm)
  Tensor dx;             // [M, C] any float (normally x's)
  Tensor dgate;          // [M, C] any float (normally gate's); may be exactly gate
  Tensor dresidual;      // [M, C] any float (normally residual's), optional; may be exactly dresidual_out
  Tensor dweight, dbias; // [C] any float, optional
  Tensor dlinear_weight; // [O, C] dtype of linear_weight or f32; f32 with accumulate
  Tensor dlinear_bias;   // [O] any float
  float weight_offset = 0;
  NormKind kind = NormKind::rms;
  GateActivation activation = GateActivation::none;
  GateOrder gate_order = GateOrder::after;
  int64_t num_groups = 1;
  bool accumulate = false;  // add to dlinear_weight
};

template <class V>
void describe(V& v, NormLinearBackward& a) {
  v.attribute("weight_offset", a.weight_offset);
  v.option("kind", a.kind, kNormKinds);
  v.option("activation", a.activation, kGateActivations);
  v.option("gate_order", a.gate_order, kGateOrders);
  v.attribute("num_groups", a.num_groups, {.min = 1});
  v.attribute("accumulate", a.accumulate);
  const Dim M = v.dim("M"), C = v.dim("C"), O = v.dim("O");
  constexpr Rule wanted{.presence = Presence::expected}, extra{.presence = Presence::optional};
  const bool gated = a.activation != GateActivation::none;
  v.input("x", a.x, {M, C}, wanted);
  v.input("residual_out", a.residual_out, {M, C}, extra);
  if (gated) v.input("gate", a.gate, {M, C});
  v.input("weight", a.weight, {C}, wanted);
  v.input("bias", a.bias, {C}, extra);
  if (a.kind == NormKind::layer) v.input("mean", a.mean, {M, a.num_groups}, {.types = kF32});
  v.input("rstd", a.rstd, {M, a.num_groups}, {.types = kF32, .content = {Content::positive}});
  v.input("linear_weight", a.linear_weight, {O, C});
  v.input("dout", a.dout, {M, O}, {.like = &a.linear_weight});
  v.input("dresidual_out", a.dresidual_out, {M, C}, extra);
  v.output("dx", a.dx, {M, C}, wanted);
  if (gated) v.output("dgate", a.dgate, {M, C}, {.presence = Presence::expected, .alias = &a.gate});
  v.output("dresidual", a.dresidual, {M, C}, {.presence = Presence::optional, .alias = &a.dresidual_out});
  v.output("dweight", a.dweight, {C}, {.presence = Presence::expected, .with = &a.weight});
  v.output("dbias", a.dbias, {C}, extra);
  detail::describe_gradient(v, "dlinear_weight", a.dlinear_weight, {O, C}, a.accumulate, wanted);
  v.output("dlinear_bias", a.dlinear_bias, {O}, extra);
}

Status check(const NormLinearBackward&);
size_t workspace_bytes(const NormLinearBackward&);
Status run(const NormLinearBackward&, Workspace, Stream);

}  // namespace fla
