// Activations and gated units.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// SwiGLU: z = x * sigmoid(x) * y, fp32 arithmetic, one rounding. x is the gate, y the linear ("up") branch.
// Shazeer 2020, arXiv 2002.05202. [M, F] rows with independent row strides, so the halves of a packed
// [M, 2F] buffer are read and written in place; collapse_rows() (tensor.h) makes [M, F] of higher ranks.
// Deterministic, no workspace. Errors: as validation (status.h), naming the field.
struct SwigluForward {
  Tensor x;  // [M, F] f32/f16/bf16
  Tensor y;  // [M, F] any float, independent of x
  Tensor z;  // [M, F] dtype of x; may be exactly x
};

template <class V>
void describe(V& v, SwigluForward& a) {
  const Dim M = v.dim("M"), F = v.dim("F");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.output("z", a.z, {M, F}, {.like = &a.x, .alias = &a.x});
}

size_t workspace_bytes(const SwigluForward&);
Status run(const SwigluForward&, Workspace, Stream);

// Backward: with s = sigmoid(x) and s' = sigmoid(-x),
//   dx = dz * y * s * (1 + x * s') ;  dy = dz * x * s ;  z = x * s * y  (on request, for the next weight gradient)
// Every output is optional, at least one is required (else invalid_argument).
struct SwigluBackward {
  Tensor x, y;  // [M, F] as forward
  Tensor dz;    // [M, F] any float
  Tensor dx;    // [M, F] any float (normally x's); may be exactly x
  Tensor dy;    // [M, F] any float (normally y's); may be exactly y
  Tensor z;     // [M, F] dtype of x, optional: recomputed output; may be exactly dz
};

template <class V>
void describe(V& v, SwigluBackward& a) {
  const Dim M = v.dim("M"), F = v.dim("F");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.input("dz", a.dz, {M, F});
  v.output("dx", a.dx, {M, F}, {.presence = Presence::expected, .alias = &a.x});
  v.output("dy", a.dy, {M, F}, {.presence = Presence::expected, .alias = &a.y});
  v.output("z", a.z, {M, F}, {.presence = Presence::optional, .like = &a.x, .alias = &a.dz});
}

Status check(const SwigluBackward&);
size_t workspace_bytes(const SwigluBackward&);
Status run(const SwigluBackward&, Workspace, Stream);

}  // namespace fla
