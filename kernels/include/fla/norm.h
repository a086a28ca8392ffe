// Row norms.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// RMS norm of every row of N elements, optionally of the sum x + residual (fused add and norm):
//
//   u = x + residual                                  in fp32, unrounded (u = x without a residual)
//   residual_out = u                                  rounded once
//   rstd = 1 / sqrt(mean_N(u^2) + eps)
//   y = u * rstd * weight + bias                      missing weight: factor 1; missing bias: 0
//
// Zhang & Sennrich 2019, arXiv 1910.07467. M tokens, G heads or groups, N elements per norm. Every [M, G, N]
// tensor may be passed as [M, N] when G = 1; outer strides are free and independent (a head of a fused QKV
// buffer needs no copy), the inner stride is 1. N up to 65536 in every dtype and beyond while it fits on chip.
//
// For a trainer: prenorm is residual_out kept as a second output; an fp32 residual stream starts with a layer
// that has no residual but asks for an f32 residual_out, and goes on with f32 residuals.
//
// Deterministic; the bits of a row do not depend on the other rows or their number. Needs no workspace.
// Errors: as validation (status.h), shape_mismatch or unsupported_dtype naming the field; invalid_argument
// for eps; unsupported_combination for a residual_out without residual that is not the f32 copy of a 16-bit x;
// unsupported_shape when a row exceeds on-chip memory.
struct RmsNormForward {
  Tensor x;             // [M, G, N] f32/f16/bf16
  Tensor residual;      // [M, G, N] any float, optional
  Tensor weight;        // [N], or [G, N] with weight_per_group; any float, optional
  Tensor bias;          // like weight in shape; any float, optional, legal without weight
  Tensor y;             // [M, G, N] dtype of x; may be exactly x when x is not needed for backward
  Tensor residual_out;  // [M, G, N] dtype of residual (f32 without one), optional; may be exactly residual
  Tensor rstd;          // [M, G] f32, saved for backward, optional (null: inference)
  float eps = 1e-5f;    // >= 0, inside the root
  bool weight_per_group = false;
};

template <class V>
void describe(V& v, RmsNormForward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("weight_per_group", a.weight_per_group);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N}, parameters = a.weight_per_group ? Shape{G, N} : Shape{N};
  v.input("x", a.x, rows);
  v.input("residual", a.residual, rows, {.presence = Presence::optional});
  v.input("weight", a.weight, parameters, {.presence = Presence::expected});
  v.input("bias", a.bias, parameters, {.presence = Presence::optional});
  v.output("y", a.y, rows, {.like = &a.x, .alias = &a.x});
  v.saved("residual_out", a.residual_out, rows,
          a.residual ? Rule{.presence = Presence::expected, .like = &a.residual, .alias = &a.residual}
                     : Rule{.presence = Presence::optional, .types = kF32});
  v.saved("rstd", a.rstd, {M, G}, {.presence = Presence::expected, .types = kF32});
}

Status check(const RmsNormForward&);
size_t workspace_bytes(const RmsNormForward&);
Status run(const RmsNormForward&, Workspace, Stream);

// Backward of RmsNormForward. With u the normalised rows as stored (residual_out where forward stored a sum,
// else x), xhat = u * rstd, s = dy * weight:
//
//   du = rstd * (s - xhat * mean_N(s * xhat)) + dresidual_out     fp32, rounded once per destination
//   dx = du, dresidual = du                                       in their own dtypes
//   dweight = sum_rows dy * xhat ;  dbias = sum_rows dy           fp32, fixed order, rounded once
//   y = xhat * weight + bias                                      recomputed on request
//
// Only the gradients whose pointers are set are computed. M = 0 writes zeros to dweight and dbias.
// When dresidual is null although a residual existed, its value is that of dx. Deterministic.
// Workspace: fp32 partial sums, workspace_bytes(args); 0 when neither dweight nor dbias is asked for.
// Errors as forward; null_pointer when rstd is missing; invalid_argument when both or neither of x and
// residual_out are given, when dweight is asked for without weight, or when no output is asked for.
struct RmsNormBackward {
  Tensor x;              // [M, G, N] the normalised rows; null when residual_out is given
  Tensor residual_out;   // [M, G, N] the stored sum; null when x is given
  Tensor weight;         // [N] or [G, N], optional
  Tensor bias;           // like weight; used for the recomputed y only, optional
  Tensor rstd;           // [M, G] f32, from forward
  Tensor dy;             // [M, G, N] any float
  Tensor dresidual_out;  // [M, G, N] any float, optional: gradient of residual_out (prenorm)
  Tensor dx;             // [M, G, N] any float (normally x's); may be exactly dy
  Tensor dresidual;      // [M, G, N] any float (normally residual's), optional; may be exactly dresidual_out
  Tensor dweight;        // like weight in shape; any float, optional
  Tensor dbias;          // like weight in shape; any float, optional
  Tensor y;              // [M, G, N] dtype of dy, optional: recomputed output
  bool weight_per_group = false;
};

template <class V>
void describe(V& v, RmsNormBackward& a) {
  v.attribute("weight_per_group", a.weight_per_group);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N}, parameters = a.weight_per_group ? Shape{G, N} : Shape{N};
  constexpr Rule wanted{.presence = Presence::expected}, extra{.presence = Presence::optional};
  v.input("x", a.x, rows, wanted);
  v.input("residual_out", a.residual_out, rows, extra);
  v.input("weight", a.weight, parameters, wanted);
  v.input("bias", a.bias, parameters, extra);
  v.input("rstd", a.rstd, {M, G}, {.types = kF32, .content = {Content::positive}});
  v.input("dy", a.dy, rows);
  v.input("dresidual_out", a.dresidual_out, rows, extra);
  v.output("dx", a.dx, rows, {.presence = Presence::expected, .alias = &a.dy});
  v.output("dresidual", a.dresidual, rows, {.presence = Presence::optional, .alias = &a.dresidual_out});
  v.output("dweight", a.dweight, parameters, {.presence = Presence::expected, .with = &a.weight});
  v.output("dbias", a.dbias, parameters, extra);
  v.output("y", a.y, rows, {.presence = Presence::optional, .like = &a.dy});
}

Status check(const RmsNormBackward&);
size_t workspace_bytes(const RmsNormBackward&);
Status run(const RmsNormBackward&, Workspace, Stream);

}  // namespace fla
