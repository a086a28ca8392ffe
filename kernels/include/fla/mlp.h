// The gated MLP.
#pragma once

#include "fla/linear.h"

namespace fla {

// GatedUnit as models name it, in its order.
inline constexpr const char* kHiddenActNames[] = {"swish", "sigmoid", "powlu", "gelu_tanh", "clamped_swish"};

// gate = x W_gate^T, up = x W_up^T (+ gate_up_bias), z = GLU(gate, up), out = z down_weight^T + down_bias; every product
// summed in fp32; gate, up, z and out rounded once each, to the dtype of x. Shazeer 2020, arXiv 2002.05202.
//
// The weights of gate and up come as one matrix gate_up_weight, gate above up, which makes them one product, or as two.
// gate and up are the halves of the rows of gate_up either way. Backward needs x and gate_up; where z is saved too it
// is not made again.
//
// Row strides are free. Deterministic for a given device and library. Workspace: workspace_bytes(args), those of gate_up
// (2 M F elements of the dtype of x) and z (M F) that are null, biases in the dtype of x where their own differs, and
// what the largest product may use (256 bytes per element of its result, 32 MiB at most, none without a GPU), each
// rounded up to 256 bytes. Errors: as validation (status.h), naming the field; invalid_argument for gate_up_weight unless
// it or gate_weight with up_weight is given; bad_stride for matrices whose rows overlap.
struct GatedMlpForward {
  Tensor x;                        // [M, H] f32/f16/bf16
  Tensor gate_up_weight;           // [2 F, H] dtype of x; null where the next two are given
  Tensor gate_weight, up_weight;   // [F, H] dtype of x
  Tensor gate_up_bias;             // [2 F] any float, read in the dtype of x; optional
  Tensor down_weight;              // [H, F] dtype of x
  Tensor down_bias;                // [H] any float, read in the dtype of x; optional
  Tensor out;                      // [M, H] dtype of x
  Tensor gate_up;                  // [M, 2 F] dtype of x, saved for backward (null: inference)
  Tensor z;                        // [M, F] dtype of x, optional: saved, so that backward need not make it again
  GatedUnit hidden_act = GatedUnit::swiglu;
  GluParameters parameters;
};

template <class V>
void describe(V& v, GatedMlpForward& a) {
  v.option("hidden_act", a.hidden_act, kHiddenActNames);
  for (const GatedUnit unit : {GatedUnit::powglu, GatedUnit::clamped_swiglu}) describe_parameters(v, unit, a.parameters);
  const Dim M = v.dim("M"), H = v.dim("H"), F = v.dim("F");
  const Rule wanted{.presence = Presence::expected, .like = &a.x}, extra{.presence = Presence::optional, .like = &a.x};
  const Rule bias{.presence = Presence::optional};
  v.input("x", a.x, {M, H});
  v.input("gate_up_weight", a.gate_up_weight, {2 * F, H}, wanted);
  v.input("gate_weight", a.gate_weight, {F, H}, extra);
  v.input("up_weight", a.up_weight, {F, H}, extra);
  v.input("gate_up_bias", a.gate_up_bias, {2 * F}, bias);
  v.input("down_weight", a.down_weight, {H, F}, {.like = &a.x});
  v.input("down_bias", a.down_bias, {H}, bias);
  v.output("out", a.out, {M, H}, {.like = &a.x});
  v.saved("gate_up", a.gate_up, {M, 2 * F}, wanted);
  v.saved("z", a.z, {M, F}, extra);
}

Status check(const GatedMlpForward&);
size_t workspace_bytes(const GatedMlpForward&);
Status run(const GatedMlpForward&, Workspace, Stream);

// Backward:
//   dz = dout down_weight ;  (dgate, dup, z) = GLU backward of dz     each rounded once, to the dtype of x
//   dx = dgate W_gate + dup W_up                                      one sum in fp32, rounded once
//   ddown_weight = dout^T z ;  dgate_up_weight = (dgate, dup)^T x     = or += (accumulate)
//   ddown_bias = sum_rows dout ;  dgate_up_bias = sum_rows (dgate, dup)
//
// Only the gradients whose pointers are set are computed, dx first, so that it can be communicated while the weights'
// products run; a product that no requested gradient needs is not run. M = 0 writes zeros to the weights' gradients.
// Workspace: M F elements of the dtype of x for dz (z in its place), 2 M F for dgate and dup, 2 F H for the two weights
// side by side where they come apart and dx is asked for, ceil(M / 64) rows of fp32 for the longer bias asked for, and
// what the largest product may use, as forward. Errors as forward; invalid_argument when no output is asked for.
struct GatedMlpBackward {
  Tensor x, gate_up_weight, gate_weight, up_weight, down_weight;  // as forward
  Tensor gate_up;                     // [M, 2 F] dtype of x, from forward
  Tensor z;                           // [M, F] dtype of x, optional: from forward
  Tensor dout;                        // [M, H] dtype of x
  Tensor dx;                          // [M, H] dtype of x or f32
  Tensor dgate_up_weight;             // [2 F, H] dtype of x or f32, with gate_up_weight
  Tensor dgate_weight, dup_weight;    // [F, H] likewise, with gate_weight and up_weight
  Tensor dgate_up_bias;               // [2 F] any float
  Tensor ddown_weight;                // [H, F] dtype of x or f32
  Tensor ddown_bias;                  // [H] any float
  bool accumulate = false;            // add to the gradients of the weights, which are f32 then
  GatedUnit hidden_act = GatedUnit::swiglu;
  GluParameters parameters;
};

template <class V>
void describe(V& v, GatedMlpBackward& a) {
  v.option("hidden_act", a.hidden_act, kHiddenActNames);
  for (const GatedUnit unit : {GatedUnit::powglu, GatedUnit::clamped_swiglu}) describe_parameters(v, unit, a.parameters);
  v.attribute("accumulate", a.accumulate);
  const Dim M = v.dim("M"), H = v.dim("H"), F = v.dim("F");
  const Rule wanted{.presence = Presence::expected, .like = &a.x}, extra{.presence = Presence::optional, .like = &a.x};
  const Rule bias{.presence = Presence::optional};
  v.input("x", a.x, {M, H});
  v.input("gate_up_weight", a.gate_up_weight, {2 * F, H}, wanted);
  v.input("gate_weight", a.gate_weight, {F, H}, extra);
  v.input("up_weight", a.up_weight, {F, H}, extra);
  v.input("down_weight", a.down_weight, {H, F}, {.like = &a.x});
  v.input("gate_up", a.gate_up, {M, 2 * F}, {.like = &a.x});
  v.input("z", a.z, {M, F}, extra);
  v.input("dout", a.dout, {M, H}, {.like = &a.x});
  v.output("dx", a.dx, {M, H}, {.presence = Presence::expected});
  const auto of = [](const Tensor& weight) { return Rule{.presence = Presence::expected, .with = &weight}; };
  detail::describe_gradient(v, "dgate_up_weight", a.dgate_up_weight, {2 * F, H}, a.accumulate, of(a.gate_up_weight));
  detail::describe_gradient(v, "dgate_weight", a.dgate_weight, {F, H}, a.accumulate, of(a.gate_weight));
  detail::describe_gradient(v, "dup_weight", a.dup_weight, {F, H}, a.accumulate, of(a.up_weight));
  v.output("dgate_up_bias", a.dgate_up_bias, {2 * F}, bias);
  detail::describe_gradient(v, "ddown_weight", a.ddown_weight, {H, F}, a.accumulate, {.presence = Presence::expected});
  v.output("ddown_bias", a.ddown_bias, {H}, bias);
}

Status check(const GatedMlpBackward&);
size_t workspace_bytes(const GatedMlpBackward&);
Status run(const GatedMlpBackward&, Workspace, Stream);

// F where it is not given: 256 ceil(floor(H ratio 2/3) / 256), the hidden width of fla's GatedMLP.
constexpr int64_t gated_mlp_width(int64_t hidden_size, int64_t hidden_ratio = 4) {
  return (hidden_size * hidden_ratio * 2 / 3 + 255) / 256 * 256;
}

}  // namespace fla
