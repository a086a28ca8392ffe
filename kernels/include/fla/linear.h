// Linear layers whose input is made on the way and not kept: gated units and norms in front of out = z W^T + b.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// Which gated unit: swiglu z = x sigmoid(x) y (activation.h).
enum class Glu : int32_t { swiglu };
inline constexpr const char* kGluNames[] = {"swish"};

namespace detail {

// A weight's gradient: written in the weight's dtype or f32, or added to an f32 main gradient.
template <class V>
void describe_weight_gradient(V& v, const char* name, Tensor& t, const Shape& shape, bool accumulate,
                              const Tensor* weight) {
  const Rule rule{.presence = Presence::expected, .types = accumulate ? kF32 : kFloats, .with = weight};
  if (accumulate) v.inout(name, t, shape, rule);
  else v.output(name, t, shape, rule);
}

}  // namespace detail

// out = z linear_weight^T + linear_bias with z = GLU(x, y), rounded to the dtype of x; the product is summed in fp32 and
// rounded once. z is not saved: backward makes it again. F inner width, O output width, M rows.
//
// Row strides are free and independent. Deterministic for a given device and library. Workspace: workspace_bytes(args),
// z (M F elements, dtype of x), linear_bias in the dtype of out where its own differs, and what the product may use
// (256 M O bytes, 32 MiB at most, none without a GPU), each rounded up to 256 bytes.
// Errors: as validation (status.h), naming the field; bad_stride for a weight whose rows overlap.
template <Glu kUnit>
struct GluLinearForward {
  Tensor x;              // [M, F] f32/f16/bf16: the gate
  Tensor y;              // [M, F] any float
  Tensor linear_weight;  // [O, F] dtype of x
  Tensor linear_bias;    // [O] any float, read in the dtype of out; optional
  Tensor out;            // [M, O] dtype of x
};
using SwigluLinearForward = GluLinearForward<Glu::swiglu>;

template <class V, Glu kUnit>
void describe(V& v, GluLinearForward<kUnit>& a) {
  const Dim M = v.dim("M"), F = v.dim("F"), O = v.dim("O");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.input("linear_weight", a.linear_weight, {O, F}, {.like = &a.x});
  v.input("linear_bias", a.linear_bias, {O}, {.presence = Presence::optional});
  v.output("out", a.out, {M, O}, {.like = &a.x});
}

template <Glu kUnit>
Status check(const GluLinearForward<kUnit>&);
template <Glu kUnit>
size_t workspace_bytes(const GluLinearForward<kUnit>&);
template <Glu kUnit>
Status run(const GluLinearForward<kUnit>&, Workspace, Stream);

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
template <Glu kUnit>
struct GluLinearBackward {
  Tensor x, y, linear_weight;  // as forward
  Tensor dout;                 // [M, O] dtype of x
  Tensor dx, dy;               // [M, F] any float (normally x's and y's); may be exactly x and y
  Tensor dlinear_weight;       // [O, F] dtype of linear_weight or f32; f32 with accumulate
  Tensor dlinear_bias;         // [O] any float
  bool accumulate = false;     // add to dlinear_weight
};
using SwigluLinearBackward = GluLinearBackward<Glu::swiglu>;

template <class V, Glu kUnit>
void describe(V& v, GluLinearBackward<kUnit>& a) {
  v.attribute("accumulate", a.accumulate);
  const Dim M = v.dim("M"), F = v.dim("F"), O = v.dim("O");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.input("linear_weight", a.linear_weight, {O, F}, {.like = &a.x});
  v.input("dout", a.dout, {M, O}, {.like = &a.x});
  v.output("dx", a.dx, {M, F}, {.presence = Presence::expected, .alias = &a.x});
  v.output("dy", a.dy, {M, F}, {.presence = Presence::expected, .alias = &a.y});
  detail::describe_weight_gradient(v, "dlinear_weight", a.dlinear_weight, {O, F}, a.accumulate, nullptr);
  v.output("dlinear_bias", a.dlinear_bias, {O}, {.presence = Presence::optional});
}

template <Glu kUnit>
Status check(const GluLinearBackward<kUnit>&);
template <Glu kUnit>
size_t workspace_bytes(const GluLinearBackward<kUnit>&);
template <Glu kUnit>
Status run(const GluLinearBackward<kUnit>&, Workspace, Stream);

}  // namespace fla
