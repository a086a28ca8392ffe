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

}  // namespace fla
