// Convolutions as long as the sequence, and the small network that makes their filters.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// How u lies: [B, L, D], [B, D, L], or [B, D, V, L], where the V rows of a head share a filter.
enum class LongConvLayout : int32_t { bld, bdl, bhvl };
inline constexpr const char* kLongConvLayoutNames[] = {"bld", "bdl", "bhvl"};

// What taps at and past L do: nothing, or what a transform of 2 L points makes of them. The latter lets taps L + 1 ..
// 2 L - 1 see the future, and is there for parity with flash-linear-attention's LongConvolution.
enum class LongConvWrap : int32_t { causal, circular2L };
inline constexpr const char* kLongConvWrapNames[] = {"causal", "circular2L"};

// Depthwise convolution with a filter of any length, with a skip, GELU (erf form) and a mask that is constant in time:
//
//   c[t] = sum_{s < L} u[s] K(t - s),   K(j) = k[j] (j >= 0) + k_rev[-j] (j <= 0)             wrap = causal
//                                       K(j) = k[j mod 2L] + k_rev[-j mod 2L]                 wrap = circular2L
//   v[t] = c[t] + skip u[t];   y[t] = dropout_mask (gelu ? v (1 + erf(v / sqrt 2)) / 2 : v)
//
// Taps past the filter are 0; skip is 1 where it is absent. fp32 with one rounding at the store, by fast transforms of at
// most 8192 points: the error of every y is relative to the norms of its row and its filter, not to its own terms, and a
// NaN or an infinity spoils others of its row. Used by Hyena and H3 (Poli et al. 2023, arXiv 2302.10866).
// B rows, L tokens, D channels or heads, V rows of a head, K and R taps. Free strides; [B, L, D] with unit stride in D and
// unit stride in L are fast. Deterministic. Errors: as validation; shape_mismatch for filters without taps where L > 0;
// unsupported_combination for dropout_mask with layout bhvl.
struct LongConvForward {
  Tensor u;             // f32/f16/bf16, shape as `layout` says
  Tensor k;             // [D, K] any float
  Tensor k_rev;         // [D, R] any float, optional; its tap 0 also meets u[t]
  Tensor skip;          // [D] any float, optional
  Tensor dropout_mask;  // [B, D] any float, optional
  Tensor y;             // as u
  LongConvLayout layout = LongConvLayout::bld;
  LongConvWrap wrap = LongConvWrap::causal;
  bool gelu = false;
};

namespace detail {

// What both directions take, and the shapes of their outputs.
struct LongConvShapes {
  Shape u, k, k_rev, skip;
};
template <class V, class A>
LongConvShapes describe_long_conv(V& v, A& a) {
  v.option("layout", a.layout, kLongConvLayoutNames);
  v.option("wrap", a.wrap, kLongConvWrapNames);
  v.attribute("gelu", a.gelu);
  const Dim B = v.dim("B", 2), L = v.dim("L"), D = v.dim("D"), K = v.dim("K", L), R = v.dim("R", L);
  const Dim rows = v.dim("V", 2);
  Shape shape{B, L, D};
  if (a.layout == LongConvLayout::bdl) shape = {B, D, L};
  if (a.layout == LongConvLayout::bhvl) shape = {B, D, rows, L};
  v.input("u", a.u, shape, {.any_inner_stride = true});
  v.input("k", a.k, {D, K});
  v.input("k_rev", a.k_rev, {D, R}, {.presence = Presence::optional});
  v.input("skip", a.skip, {D}, {.presence = Presence::optional});
  v.input("dropout_mask", a.dropout_mask, {B, D}, {.presence = Presence::optional});
  return {shape, {D, K}, {D, R}, {D}};
}

}  // namespace detail

template <class V>
void describe(V& v, LongConvForward& a) {
  const detail::LongConvShapes shapes = detail::describe_long_conv(v, a);
  v.output("y", a.y, shapes.u, {.like = &a.u, .any_inner_stride = true});
}

Status check(const LongConvForward&);
size_t workspace_bytes(const LongConvForward&);
Status run(const LongConvForward&, Workspace, Stream);

// Backward; v is recomputed. With q[t] = dy[t] dropout_mask (gelu ? Phi(v) + v phi(v) : 1):
//
//   du[s] = skip q[s] + sum_t q[t] K(t - s);   dskip = sum q u;   dK(j) = sum_t q[t] u[t - j], over batch and V too
//   dk[m] = dK(m), dk_rev[m] = dK(-m) for m < L and 0 from there; circular2L: also dk[m] = dK(m - 2L),
//   dk_rev[m] = dK(2L - m) for L < m < 2L
//
// Only the gradients whose pointers are set are computed; at least one is required. dropout_mask has none.
struct LongConvBackward {
  Tensor u, k, k_rev, skip, dropout_mask;  // as forward
  Tensor dy;      // any float, shape of u
  Tensor du;      // any float, shape of u
  Tensor dk;      // [D, K] any float
  Tensor dk_rev;  // [D, R] any float
  Tensor dskip;   // [D] any float
  LongConvLayout layout = LongConvLayout::bld;
  LongConvWrap wrap = LongConvWrap::causal;
  bool gelu = false;
};

template <class V>
void describe(V& v, LongConvBackward& a) {
  const detail::LongConvShapes shapes = detail::describe_long_conv(v, a);
  v.input("dy", a.dy, shapes.u, {.any_inner_stride = true});
  v.output("du", a.du, shapes.u, {.presence = Presence::expected, .any_inner_stride = true});
  v.output("dk", a.dk, shapes.k, {.presence = Presence::expected});
  v.output("dk_rev", a.dk_rev, shapes.k_rev, {.presence = Presence::expected, .with = &a.k_rev});
  v.output("dskip", a.dskip, shapes.skip, {.presence = Presence::expected, .with = &a.skip});
}

Status check(const LongConvBackward&);
size_t workspace_bytes(const LongConvBackward&);
Status run(const LongConvBackward&, Workspace, Stream);

// Positions as features, for implicit filters (Romero et al. 2021, arXiv 2102.02611; Hyena). Row l of P, b = (E - 1) / 2:
//   z[l] = [ l / (P - 1),  cos(f_i w_l), i < b,  -sin(f_i w_l), i < b ],   w_l = 2 pi l / P
// with f_i evenly spaced from 1e-4 to b - 1 (b = 1: 1e-4 alone); the first column is 0 where P = 1. In fp32, angles exact to
// their last bit before the turn is taken. Errors: as validation; invalid_argument for E even or below 3, or P < 1.
struct LongConvPosTable {
  Tensor z;  // [P, E] f32
};

template <class V>
void describe(V& v, LongConvPosTable& a) {
  const Dim P = v.dim("P"), E = v.dim("E", 3);
  v.output("z", a.z, {P, E}, {.types = kF32});
}

Status check(const LongConvPosTable&);
size_t workspace_bytes(const LongConvPosTable&);
Status run(const LongConvPosTable&, Workspace, Stream);

// The filter of a long convolution as a network of positions, from the first L rows of z:
//   h = relu(z hidden_weight^T + hidden_bias);   k = (h output_weight^T + output_bias)^T
// fp32 throughout: parameters are converted, sums are fp32. L taps, P >= L positions, E features, H hidden, D channels.
// Errors: as validation; shape_mismatch for P < L; invalid_argument for E even or below 3.
struct ImplicitFilterForward {
  Tensor z;              // [P, E] f32
  Tensor hidden_weight;  // [H, E] any float, as the other parameters
  Tensor hidden_bias;    // [H]
  Tensor output_weight;  // [D, H]
  Tensor output_bias;    // [D]
  Tensor k;              // [D, L] f32
};

namespace detail {

struct ImplicitFilterShapes {
  Shape hidden_weight, hidden_bias, output_weight, output_bias, k;
};
template <class V, class A>
ImplicitFilterShapes describe_implicit_filter(V& v, A& a) {
  const Dim L = v.dim("L"), P = v.dim("P", L), E = v.dim("E", 3), H = v.dim("H", 16), D = v.dim("D");
  const ImplicitFilterShapes shapes{{H, E}, {H}, {D, H}, {D}, {D, L}};
  v.input("z", a.z, {P, E}, {.types = kF32});
  v.input("hidden_weight", a.hidden_weight, shapes.hidden_weight);
  v.input("hidden_bias", a.hidden_bias, shapes.hidden_bias);
  v.input("output_weight", a.output_weight, shapes.output_weight);
  v.input("output_bias", a.output_bias, shapes.output_bias);
  return shapes;
}

}  // namespace detail

template <class V>
void describe(V& v, ImplicitFilterForward& a) {
  const detail::ImplicitFilterShapes shapes = detail::describe_implicit_filter(v, a);
  v.output("k", a.k, shapes.k, {.types = kF32});
}

Status check(const ImplicitFilterForward&);
size_t workspace_bytes(const ImplicitFilterForward&);
Status run(const ImplicitFilterForward&, Workspace, Stream);

// Backward; h is recomputed. dh = dk^T output_weight, da = dh [h > 0]:
//   doutput_weight = dk h;  doutput_bias = sum_l dk;  dhidden_weight = da^T z;  dhidden_bias = sum_l da
// z has no gradient. Deterministic. Gradients that are absent are not stored; at least one is required.
struct ImplicitFilterBackward {
  Tensor z, hidden_weight, hidden_bias, output_weight, output_bias;  // as forward
  Tensor dk;              // [D, L] f32
  Tensor dhidden_weight;  // [H, E] any float, as the others
  Tensor dhidden_bias;    // [H]
  Tensor doutput_weight;  // [D, H]
  Tensor doutput_bias;    // [D]
};

template <class V>
void describe(V& v, ImplicitFilterBackward& a) {
  const detail::ImplicitFilterShapes shapes = detail::describe_implicit_filter(v, a);
  v.input("dk", a.dk, shapes.k, {.types = kF32});
  v.output("dhidden_weight", a.dhidden_weight, shapes.hidden_weight, {.presence = Presence::expected});
  v.output("dhidden_bias", a.dhidden_bias, shapes.hidden_bias, {.presence = Presence::expected});
  v.output("doutput_weight", a.doutput_weight, shapes.output_weight, {.presence = Presence::expected});
  v.output("doutput_bias", a.doutput_bias, shapes.output_bias, {.presence = Presence::expected});
}

Status check(const ImplicitFilterBackward&);
size_t workspace_bytes(const ImplicitFilterBackward&);
Status run(const ImplicitFilterBackward&, Workspace, Stream);

}  // namespace fla
