// Row norms: layer_norm, rms_norm, group_norm.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

enum class NormKind : int32_t { layer, rms };
inline constexpr const char* kNormKinds[] = {"layer", "rms"};

// Normalises every row of N elements, optionally of the sum x + residual (fused add and norm):
//
//   u = x + residual                                  in fp32, unrounded (u = x without a residual)
//   residual_out = u                                  rounded once
//   mean = mean_N(u)                                  kind layer; kind rms: mean = 0, not stored
//   rstd = 1 / sqrt(mean_N((u - mean)^2) + eps)       biased variance, by deviations
//   y = (u - mean) * rstd * (weight + weight_offset) + bias
//                                                     missing weight: factor 1; missing bias: 0
//
// One contract for three operators, which differ in defaults only: layer_norm, rms_norm (kind rms) and group_norm
// (weight_per_group). Ba et al. 2016, arXiv 1607.06450; Zhang & Sennrich 2019, arXiv 1910.07467.
//
// M tokens, G heads or groups, N elements per norm. Every [M, G, N] tensor may be passed as [M, N] when G = 1;
// outer strides are free and independent, the inner stride is 1: a head of a fused QKV buffer needs no copy, and
// group norm of [M, C] is the view [M, G, C / G]. N up to 65536 in every dtype, and beyond.
//
// For a trainer: prenorm is residual_out kept as a second output; an fp32 residual stream starts with a layer
// that has no residual but asks for an f32 residual_out, and goes on with f32 residuals.
//
// Deterministic; the bits of a row do not depend on the other rows or their number. Needs no workspace.
// Errors: as validation (status.h), shape_mismatch or unsupported_dtype naming the field; invalid_argument
// for eps, weight_offset or kind; unsupported_combination for a residual_out without residual that is not the f32
// copy of a 16-bit x; unsupported_shape when N is 0 or near 2^31, or for 2^32 rows; bad_stride for rows 2^32 elements apart.
template <NormKind kKind, bool kPerGroup>
struct NormForward {
  Tensor x;             // [M, G, N] f32/f16/bf16
  Tensor residual;      // [M, G, N] any float, optional
  Tensor weight;        // [N], or [G, N] with weight_per_group; any float, optional
  Tensor bias;          // like weight in shape; any float, optional, legal without weight
  Tensor y;             // [M, G, N] any float (normally x's); may be exactly x when x is not needed for backward
  Tensor residual_out;  // [M, G, N] dtype of residual (f32 without one), optional; may be exactly residual
  Tensor mean;          // [M, G] f32, saved for backward, optional; kind layer only
  Tensor rstd;          // [M, G] f32, saved for backward, optional (null: inference)
  float eps = 1e-5f;    // >= 0, inside the root
  float weight_offset = 0;  // 1 for weights stored as their distance from one
  NormKind kind = kKind;
  bool weight_per_group = kPerGroup;
};
using LayerNormForward = NormForward<NormKind::layer, false>;
using RmsNormForward = NormForward<NormKind::rms, false>;
using GroupNormForward = NormForward<NormKind::layer, true>;

template <class V, NormKind kKind, bool kPerGroup>
void describe(V& v, NormForward<kKind, kPerGroup>& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("weight_offset", a.weight_offset);
  v.option("kind", a.kind, kNormKinds);
  v.attribute("weight_per_group", a.weight_per_group);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N}, parameters = a.weight_per_group ? Shape{G, N} : Shape{N};
  constexpr Rule statistic{.presence = Presence::expected, .types = kF32};
  v.input("x", a.x, rows);
  v.input("residual", a.residual, rows, {.presence = Presence::optional});
  v.input("weight", a.weight, parameters, {.presence = Presence::expected});
  v.input("bias", a.bias, parameters, {.presence = Presence::optional});
  v.output("y", a.y, rows, {.alias = &a.x});
  v.saved("residual_out", a.residual_out, rows,
          a.residual ? Rule{.presence = Presence::expected, .like = &a.residual, .alias = &a.residual}
                     : Rule{.presence = Presence::optional, .types = kF32});
  if (a.kind == NormKind::layer) v.saved("mean", a.mean, {M, G}, statistic);
  v.saved("rstd", a.rstd, {M, G}, statistic);
}

template <NormKind kKind, bool kPerGroup>
Status check(const NormForward<kKind, kPerGroup>&);
template <NormKind kKind, bool kPerGroup>
size_t workspace_bytes(const NormForward<kKind, kPerGroup>&) { return 0; }
template <NormKind kKind, bool kPerGroup>
Status run(const NormForward<kKind, kPerGroup>&, Workspace, Stream);

// Backward of NormForward. With u the normalised rows as stored (residual_out where forward stored a sum, else x),
// xhat = (u - mean) * rstd, s = dy * (weight + weight_offset):
//
//   du = rstd * (s - xhat * mean_N(s * xhat) - mean_N(s)) + dresidual_out     fp32, rounded once per destination
//                                                     (kind rms: without mean_N(s))
//   dx = du, dresidual = du                           in their own dtypes
//   dweight = sum_rows dy * xhat ;  dbias = sum_rows dy           fp32, fixed order, rounded once; accumulate: +=
//   y = xhat * (weight + weight_offset) + bias        recomputed on request
//
// Only the gradients whose pointers are set are computed. M = 0 writes zeros to dweight and dbias, or leaves them
// where it would add.
// When dresidual is null although a residual existed, its value is that of dx. Deterministic.
// Workspace: fp32 partial sums, workspace_bytes(args); 0 when neither dweight nor dbias is asked for.
// Errors as forward; null_pointer when a statistic is missing; invalid_argument when both or neither of x and
// residual_out are given, when dweight is asked for without weight, or when no output is asked for.
template <NormKind kKind, bool kPerGroup>
struct NormBackward {
  Tensor x;              // [M, G, N] the normalised rows; null when residual_out is given
  Tensor residual_out;   // [M, G, N] the stored sum; null when x is given
  Tensor weight;         // [N] or [G, N], optional
  Tensor bias;           // like weight; used for the recomputed y only, optional
  Tensor mean;           // [M, G] f32, from forward; kind layer only
  Tensor rstd;           // [M, G] f32, from forward
  Tensor dy;             // [M, G, N] any float
  Tensor dresidual_out;  // [M, G, N] any float, optional: gradient of residual_out (prenorm)
  Tensor dx;             // [M, G, N] any float (normally x's); may be exactly dy
  Tensor dresidual;      // [M, G, N] any float (normally residual's), optional; may be exactly dresidual_out
  Tensor dweight;        // like weight in shape; any float, optional
  Tensor dbias;          // like weight in shape; any float, optional
  Tensor y;              // [M, G, N] dtype of dy, optional: recomputed output
  float weight_offset = 0;
  NormKind kind = kKind;
  bool weight_per_group = kPerGroup;
  bool accumulate = false;  // add to dweight and dbias, which are f32 then
};
using LayerNormBackward = NormBackward<NormKind::layer, false>;
using RmsNormBackward = NormBackward<NormKind::rms, false>;
using GroupNormBackward = NormBackward<NormKind::layer, true>;

template <class V, NormKind kKind, bool kPerGroup>
void describe(V& v, NormBackward<kKind, kPerGroup>& a) {
  v.attribute("weight_offset", a.weight_offset);
  v.option("kind", a.kind, kNormKinds);
  v.attribute("weight_per_group", a.weight_per_group);
  v.attribute("accumulate", a.accumulate);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N}, parameters = a.weight_per_group ? Shape{G, N} : Shape{N};
  constexpr Rule wanted{.presence = Presence::expected}, extra{.presence = Presence::optional};
  v.input("x", a.x, rows, wanted);
  v.input("residual_out", a.residual_out, rows, extra);
  v.input("weight", a.weight, parameters, wanted);
  v.input("bias", a.bias, parameters, extra);
  if (a.kind == NormKind::layer) v.input("mean", a.mean, {M, G}, {.types = kF32});
  v.input("rstd", a.rstd, {M, G}, {.types = kF32, .content = {Content::positive}});
  v.input("dy", a.dy, rows);
  v.input("dresidual_out", a.dresidual_out, rows, extra);
  v.output("dx", a.dx, rows, {.presence = Presence::expected, .alias = &a.dy});
  v.output("dresidual", a.dresidual, rows, {.presence = Presence::optional, .alias = &a.dresidual_out});
  detail::describe_gradient(v, "dweight", a.dweight, parameters, a.accumulate, {.presence = Presence::expected, .with = &a.weight});
  detail::describe_gradient(v, "dbias", a.dbias, parameters, a.accumulate, extra);
  v.output("y", a.y, rows, {.presence = Presence::optional, .like = &a.dy});
}

template <NormKind kKind, bool kPerGroup>
Status check(const NormBackward<kKind, kPerGroup>&);
template <NormKind kKind, bool kPerGroup>
size_t workspace_bytes(const NormBackward<kKind, kPerGroup>&);
template <NormKind kKind, bool kPerGroup>
Status run(const NormBackward<kKind, kPerGroup>&, Workspace, Stream);

}  // namespace fla
