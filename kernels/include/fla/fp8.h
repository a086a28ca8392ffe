// Quantised (fp8) forwards for serving: quantize_fp8, and the same fused into rms_norm, rms_norm_gated and swiglu.
#pragma once

#include "fla/gated_norm.h"

namespace fla {

// The group of values that share a scale: a token's row (all G heads of it), or 128 columns of it (the last block of a
// row may be short).
enum class Fp8Scaling : int32_t { row, block };
inline constexpr const char* kFp8Scalings[] = {"row", "block"};
inline constexpr int64_t kFp8Block = 128;
// Groups whose largest magnitude is below this are scaled as if it were this, so that no scale is 0 (vLLM and SGLang).
inline constexpr float kFp8SmallestMaximum = 1e-10f;

// Quantises rows to E4M3 with a scale for each group:
//
//   scale = max(max_group |x|, 1e-10) / 448           fp32, within an ulp
//   q = x / scale                                     fp32, by the reciprocal and within two ulps, then rounded to E4M3,
//                                                     to nearest even, saturating
//
// so x is about q scale. NaN in a group makes the scale and the group NaN; an infinity makes the scale infinite, finite
// values 0 and infinite ones NaN.
//
// M tokens, G heads, N elements. Every [M, G, N] tensor may be passed as [M, N] when G = 1, [M, G, B] then as [M, B].
// Outer strides are free; those of scale all are: column-major scales, as TMA products want them, are strides {1, M'}.
// Errors: as validation (status.h); bad_stride for rows 2^32 elements apart; unsupported_shape when N is 0 or near 2^31, and
// for blocks of several heads where N is no multiple of 128: blocks run over the row of all heads, and would lie in two.
// Deterministic; the bits of a token do not depend on the other tokens. No workspace. Micikevicius et al. 2022, 2209.05433.
struct QuantizeFp8Forward {
  Tensor x;      // [M, G, N] f32/f16/bf16
  Tensor q;      // [M, G, N] f8e4m3
  Tensor scale;  // [M] f32 with scaling row; [M, G, ceil(N / 128)] with scaling block
  Fp8Scaling scaling = Fp8Scaling::row;
};

namespace detail {

template <class V>
void describe_fp8(V& v, Fp8Scaling scaling, Tensor& q, Tensor& scale, Dim M, Dim G, Dim N) {
  const Rule f32{.types = kF32, .any_inner_stride = true};
  v.output("q", q, {M, G, N}, {.types = only(DType::f8e4m3)});
  v.output("scale", scale, scaling == Fp8Scaling::row ? Shape{M} : Shape{M, G, blocks_of(N, kFp8Block)}, f32);
}

}  // namespace detail

template <class V>
void describe(V& v, QuantizeFp8Forward& a) {
  v.option("scaling", a.scaling, kFp8Scalings);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  v.input("x", a.x, {M, G, N});
  detail::describe_fp8(v, a.scaling, a.q, a.scale, M, G, N);
}

Status check(const QuantizeFp8Forward&);
size_t workspace_bytes(const QuantizeFp8Forward&);
Status run(const QuantizeFp8Forward&, Workspace, Stream);

// rms_norm (norm.h; with a residual, the fused add and norm) or rms_norm_gated (gated_norm.h), and QuantizeFp8Forward of
// its y rounded to the dtype of x: to the bit what the two calls give. One contract for two operators, rms_norm_fp8 and
// rms_norm_gated_fp8 (activation swish or sigmoid).
//
// One pass over memory for x, gate and residual in one 16-bit dtype, 16-byte aligned, weight in that or f32, N a multiple
// of 8 up to 16384, no gate beside a residual, and with G > 1 scaling block. Everything else is the two calls, with y in the
// workspace where the caller does not want it: workspace_bytes(args).
// Errors as those of the two.
struct RmsNormFp8Forward {
  Tensor x;             // [M, G, N] f32/f16/bf16
  Tensor residual;      // [M, G, N] any float, optional; gate_order after only
  Tensor gate;          // [M, G, N] any float; activation none: null
  Tensor weight;        // [N], or [G, N] with weight_per_group; any float, optional
  Tensor y;             // [M, G, N] dtype of x, optional: what is quantised (routers want it); may be exactly x
  Tensor residual_out;  // [M, G, N] dtype of residual, optional; may be exactly residual
  Tensor q;             // [M, G, N] f8e4m3
  Tensor scale;         // [M] f32 with scaling row; [M, G, ceil(N / 128)] with scaling block
  float eps = 1e-5f;    // >= 0, inside the root
  float weight_offset = 0;
  GateActivation activation = GateActivation::none;
  GateOrder gate_order = GateOrder::after;
  bool weight_per_group = false;
  Fp8Scaling scaling = Fp8Scaling::row;
};

template <class V>
void describe(V& v, RmsNormFp8Forward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("weight_offset", a.weight_offset);
  v.option("activation", a.activation, kGateActivations);
  v.option("gate_order", a.gate_order, kGateOrders);
  v.attribute("weight_per_group", a.weight_per_group);
  v.option("scaling", a.scaling, kFp8Scalings);
  const Dim M = v.dim("M"), G = v.dim("G", 1), N = v.dim("N");
  const Shape rows{M, G, N};
  v.input("x", a.x, rows);
  v.input("residual", a.residual, rows, {.presence = Presence::optional});
  if (a.activation != GateActivation::none) v.input("gate", a.gate, rows);
  v.input("weight", a.weight, a.weight_per_group ? Shape{G, N} : Shape{N}, {.presence = Presence::expected});
  v.output("y", a.y, rows, {.presence = Presence::optional, .like = &a.x, .alias = &a.x});
  v.output("residual_out", a.residual_out, rows,
           {.presence = Presence::expected, .like = &a.residual, .with = &a.residual, .alias = &a.residual});
  detail::describe_fp8(v, a.scaling, a.q, a.scale, M, G, N);
}

Status check(const RmsNormFp8Forward&);
size_t workspace_bytes(const RmsNormFp8Forward&);
Status run(const RmsNormFp8Forward&, Workspace, Stream);

// swiglu (activation.h), and QuantizeFp8Forward of its z rounded to the dtype of x: to the bit what the two calls give.
//
// One pass over memory for x and y in one 16-bit dtype, 16-byte aligned, F a multiple of 8 and with scaling row at most
// 16384; everything else is the two calls, with z in the workspace where the caller does not want it.
// Errors as those of the two.
struct SwigluFp8Forward {
  Tensor x;      // [M, F] f32/f16/bf16
  Tensor y;      // [M, F] any float, independent of x
  Tensor z;      // [M, F] dtype of x, optional: what is quantised; may be exactly x
  Tensor q;      // [M, F] f8e4m3
  Tensor scale;  // [M] f32 with scaling row; [M, ceil(F / 128)] with scaling block
  Fp8Scaling scaling = Fp8Scaling::row;
};

template <class V>
void describe(V& v, SwigluFp8Forward& a) {
  v.option("scaling", a.scaling, kFp8Scalings);
  const Dim M = v.dim("M"), F = v.dim("F");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.output("z", a.z, {M, F}, {.presence = Presence::optional, .like = &a.x, .alias = &a.x});
  v.output("q", a.q, {M, F}, {.types = only(DType::f8e4m3)});
  v.output("scale", a.scale, a.scaling == Fp8Scaling::row ? Shape{M} : Shape{M, blocks_of(F, kFp8Block)},
           {.types = kF32, .any_inner_stride = true});
}

Status check(const SwigluFp8Forward&);
size_t workspace_bytes(const SwigluFp8Forward&);
Status run(const SwigluFp8Forward&, Workspace, Stream);

}  // namespace fla
