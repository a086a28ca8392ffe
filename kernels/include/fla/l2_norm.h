// L2 norm of rows: the q- and k-normalisation of delta-rule models.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// rstd = 1 / sqrt(sum_N(x^2) + eps) ;  y = x * rstd
//
// Not x / max(|x|, eps): at |x| = 0.003 and eps = 1e-6 the length of y is 0.949. [M, G, N] and strides as in norm.h.
// Deterministic; the bits of a row do not depend on the other rows. No workspace.
// Errors: as validation (status.h), naming the field; invalid_argument for eps; unsupported_shape for N = 0;
// bad_stride for rows 2^32 elements apart.
struct L2NormForward {
  Tensor x;           // [M, G, N] f32/f16/bf16
  Tensor y;           // [M, G, N] any float (normally x's); may be exactly x
  Tensor rstd;        // [M, G] f32, saved for backward, optional (null: inference)
  float eps = 1e-6f;  // >= 0, inside the root
};

template <class V>
void describe(V& v, L2NormForward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  v.input("x", a.x, {M, G, N});
  v.output("y", a.y, {M, G, N}, {.alias = &a.x});
  v.saved("rstd", a.rstd, {M, G}, {.presence = Presence::expected, .types = kF32});
}

Status check(const L2NormForward&);
inline size_t workspace_bytes(const L2NormForward&) { return 0; }
Status run(const L2NormForward&, Workspace, Stream);

// Backward, from the stored output: y = x rstd and rstd contains eps, so that for every eps
//   dx = rstd * (dy - y * sum_N(dy * y))
// Errors as forward.
struct L2NormBackward {
  Tensor y;     // [M, G, N] from forward, as rounded
  Tensor rstd;  // [M, G] f32, from forward
  Tensor dy;    // [M, G, N] any float
  Tensor dx;    // [M, G, N] any float (normally x's); may be exactly dy
};

template <class V>
void describe(V& v, L2NormBackward& a) {
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  v.input("y", a.y, {M, G, N});
  v.input("rstd", a.rstd, {M, G}, {.types = kF32, .content = {Content::positive}});
  v.input("dy", a.dy, {M, G, N});
  v.output("dx", a.dx, {M, G, N}, {.alias = &a.dy});
}

Status check(const L2NormBackward&);
inline size_t workspace_bytes(const L2NormBackward&) { return 0; }
Status run(const L2NormBackward&, Workspace, Stream);

}  // namespace fla
