// Row norms with an output or input gate: layer_norm_gated, rms_norm_gated.
#pragma once

#include "fla/norm.h"

namespace fla {

enum class GateActivation : int32_t { swish, sigmoid, none };
inline constexpr const char* kGateActivations[] = {"swish", "sigmoid", "none"};
enum class GateOrder : int32_t { after, before };
inline constexpr const char* kGateOrders[] = {"after", "before"};

// NormForward (norm.h) with a gate of x's shape, A(g) = g sigmoid(g) (swish) or sigmoid(g):
//
//   gate_order after:   y = norm(x + residual) * A(gate)
//   gate_order before:  y = norm(x * A(gate))             the product unrounded; no residual
//
// activation none: no gate, the plain norm. After is what GLA, RetNet, Gated DeltaNet and KDA do, per head; before is
// Mamba-2 (Dao & Gu 2024, arXiv 2405.21060), per group of channels. fla: norm_before_gate = true is after.
//
// Promises and errors as NormForward; in addition null_pointer when the gate is missing though activation is not none;
// invalid_argument for a residual with gate_order before, and for a gate with activation none.
template <NormKind kKind>
struct GatedNormForward {
  Tensor x;             // [M, G, N] f32/f16/bf16
  Tensor residual;      // [M, G, N] any float, optional; gate_order after only
  Tensor gate;          // [M, G, N] any float; activation none: null
  Tensor weight;        // [N], or [G, N] with weight_per_group; any float, optional
  Tensor bias;          // like weight in shape; any float, optional, legal without weight
  Tensor y;             // [M, G, N] any float (normally x's); may be exactly x when x is not needed for backward
  Tensor residual_out;  // [M, G, N] dtype of residual (f32 without one), optional; may be exactly residual
  Tensor mean;          // [M, G] f32, saved for backward, optional; kind layer only
  Tensor rstd;          // [M, G] f32, saved for backward, optional (null: inference)
  float eps = 1e-6f;    // >= 0, inside the root
  float weight_offset = 0;
  GateActivation activation = GateActivation::swish;
  GateOrder gate_order = GateOrder::after;
  bool weight_per_group = false;
};
using LayerNormGatedForward = GatedNormForward<NormKind::layer>;
using RmsNormGatedForward = GatedNormForward<NormKind::rms>;

template <class V, NormKind kKind>
void describe(V& v, GatedNormForward<kKind>& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("weight_offset", a.weight_offset);
  v.option("activation", a.activation, kGateActivations);
  v.option("gate_order", a.gate_order, kGateOrders);
  v.attribute("weight_per_group", a.weight_per_group);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N}, parameters = a.weight_per_group ? Shape{G, N} : Shape{N};
  constexpr Rule statistic{.presence = Presence::expected, .types = kF32};
  v.input("x", a.x, rows);
  v.input("residual", a.residual, rows, {.presence = Presence::optional});
  if (a.activation != GateActivation::none) v.input("gate", a.gate, rows);
  v.input("weight", a.weight, parameters, {.presence = Presence::expected});
  v.input("bias", a.bias, parameters, {.presence = Presence::optional});
  v.output("y", a.y, rows, {.alias = &a.x});
  v.saved("residual_out", a.residual_out, rows,
          a.residual ? Rule{.presence = Presence::expected, .like = &a.residual, .alias = &a.residual}
                     : Rule{.presence = Presence::optional, .types = kF32});
  if constexpr (kKind == NormKind::layer) v.saved("mean", a.mean, {M, G}, statistic);
  v.saved("rstd", a.rstd, {M, G}, statistic);
}

template <NormKind kKind>
Status check(const GatedNormForward<kKind>&);
template <NormKind kKind>
size_t workspace_bytes(const GatedNormForward<kKind>&) { return 0; }
template <NormKind kKind>
Status run(const GatedNormForward<kKind>&, Workspace, Stream);

// Backward of GatedNormForward. A'(g) = sigmoid(g) (1 + g sigmoid(-g)) (swish) or sigmoid(g) sigmoid(-g); u as stored;
// v = u (after) or u A(gate) (before), xhat = (v - mean) * rstd, n = xhat * (weight + weight_offset) + bias:
//
//   after:   dn = dy A(gate)        dgate = dy n A'(gate)      y = n A(gate)
//   before:  dn = dy                dgate = dv u A'(gate)      y = n
//   s = dn (weight + weight_offset) ;  dv = rstd (s - xhat mean_N(s xhat) - mean_N(s))     (rms: without mean_N(s))
//   du = dv (after) or dv A(gate) (before), + dresidual_out ;  dx = du, dresidual = du
//   dweight = sum_rows dn xhat ;  dbias = sum_rows dn             (accumulate: +=)
//
// Presence, promises, workspace and errors as NormBackward.
template <NormKind kKind>
struct GatedNormBackward {
  Tensor x;              // [M, G, N] the normalised rows; null when residual_out is given
  Tensor residual_out;   // [M, G, N] the stored sum; null when x is given
  Tensor gate;           // [M, G, N] as forward
  Tensor weight;         // [N] or [G, N], optional
  Tensor bias;           // like weight; needed where dgate (after) or y is asked for, optional
  Tensor mean;           // [M, G] f32, from forward; kind layer only
  Tensor rstd;           // [M, G] f32, from forward
  Tensor dy;             // [M, G, N] any float
  Tensor dresidual_out;  // [M, G, N] any float, optional: gradient of residual_out (prenorm)
  Tensor dx;             // [M, G, N] any float (normally x's); may be exactly dy
  Tensor dgate;          // [M, G, N] any float (normally gate's), optional; may be exactly gate
  Tensor dresidual;      // [M, G, N] any float (normally residual's), optional; may be exactly dresidual_out
  Tensor dweight;        // like weight in shape; any float, optional
  Tensor dbias;          // like weight in shape; any float, optional
  Tensor y;              // [M, G, N] dtype of dy, optional: recomputed output, gate included
  float weight_offset = 0;
  GateActivation activation = GateActivation::swish;
  GateOrder gate_order = GateOrder::after;
  bool weight_per_group = false;
  bool accumulate = false;  // add to dweight and dbias, which are f32 then
};
using LayerNormGatedBackward = GatedNormBackward<NormKind::layer>;
using RmsNormGatedBackward = GatedNormBackward<NormKind::rms>;

template <class V, NormKind kKind>
void describe(V& v, GatedNormBackward<kKind>& a) {
  v.attribute("weight_offset", a.weight_offset);
  v.option("activation", a.activation, kGateActivations);
  v.option("gate_order", a.gate_order, kGateOrders);
  v.attribute("weight_per_group", a.weight_per_group);
  v.attribute("accumulate", a.accumulate);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N}, parameters = a.weight_per_group ? Shape{G, N} : Shape{N};
  constexpr Rule wanted{.presence = Presence::expected}, extra{.presence = Presence::optional};
  const bool gated = a.activation != GateActivation::none;
  v.input("x", a.x, rows, wanted);
  v.input("residual_out", a.residual_out, rows, extra);
  if (gated) v.input("gate", a.gate, rows);
  v.input("weight", a.weight, parameters, wanted);
  v.input("bias", a.bias, parameters, extra);
  if constexpr (kKind == NormKind::layer) v.input("mean", a.mean, {M, G}, {.types = kF32});
  v.input("rstd", a.rstd, {M, G}, {.types = kF32, .content = {Content::positive}});
  v.input("dy", a.dy, rows);
  v.input("dresidual_out", a.dresidual_out, rows, extra);
  v.output("dx", a.dx, rows, {.presence = Presence::expected, .alias = &a.dy});
  if (gated) v.output("dgate", a.dgate, rows, {.presence = Presence::expected, .alias = &a.gate});
  v.output("dresidual", a.dresidual, rows, {.presence = Presence::optional, .alias = &a.dresidual_out});
  detail::describe_gradient(v, "dweight", a.dweight, parameters, a.accumulate, {.presence = Presence::expected, .with = &a.weight});
  detail::describe_gradient(v, "dbias", a.dbias, parameters, a.accumulate, extra);
  v.output("y", a.y, rows, {.presence = Presence::optional, .like = &a.dy});
}

template <NormKind kKind>
Status check(const GatedNormBackward<kKind>&);
template <NormKind kKind>
size_t workspace_bytes(const GatedNormBackward<kKind>&);
template <NormKind kKind>
Status run(const GatedNormBackward<kKind>&, Workspace, Stream);

}  // namespace fla
