// RMS norms of the heads of q and k.
#pragma once

#include "fla/norm.h"

namespace fla {

// rms_norm (norm.h: formula, strides, bits of a row) of every head of q and of k, each with its own weight, before rotary
// embedding (Qwen3, OLMo 2). One launch where rows are short (N up to 64 vectors of 16 bytes) and aligned, else two. q and k
// may be columns of one fused QKV buffer and be overwritten in place.
// Errors: as RmsNormForward.
struct QkNormForward {
  Tensor q;         // [M, H, N] f32/f16/bf16
  Tensor k;         // [M, K, N] dtype of q
  Tensor q_weight;  // [N] any float, optional
  Tensor k_weight;  // [N] any float, optional
  Tensor q_out;     // [M, H, N] any float (normally q's); may be exactly q
  Tensor k_out;     // [M, K, N] any float; may be exactly k
  Tensor q_rstd;    // [M, H] f32, saved for backward, optional
  Tensor k_rstd;    // [M, K] f32, saved for backward, optional
  float eps = 1e-6f;        // >= 0, inside the root
  float weight_offset = 0;  // 1 for weights stored as their distance from one
};

template <class V>
void describe(V& v, QkNormForward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("weight_offset", a.weight_offset);
  const Dim M = v.dim("M"), H = v.dim("H"), K = v.dim("K"), N = v.dim("N");
  constexpr Rule statistic{.presence = Presence::expected, .types = kF32};
  v.input("q", a.q, {M, H, N});
  v.input("k", a.k, {M, K, N}, {.like = &a.q});
  v.input("q_weight", a.q_weight, {N}, {.presence = Presence::expected});
  v.input("k_weight", a.k_weight, {N}, {.presence = Presence::expected});
  v.output("q_out", a.q_out, {M, H, N}, {.alias = &a.q});
  v.output("k_out", a.k_out, {M, K, N}, {.alias = &a.k});
  v.saved("q_rstd", a.q_rstd, {M, H}, statistic);
  v.saved("k_rstd", a.k_rstd, {M, K}, statistic);
}

Status check(const QkNormForward&);
inline size_t workspace_bytes(const QkNormForward&) { return 0; }
Status run(const QkNormForward&, Workspace, Stream);

// Backward: RmsNormBackward of q, then of k. Only the gradients whose pointers are set are computed, at least one of each.
// Workspace: what the larger of the two needs. Errors: as RmsNormBackward.
struct QkNormBackward {
  Tensor q, k, q_weight, k_weight, q_rstd, k_rstd;  // as forward
  Tensor dq_out;     // [M, H, N] any float
  Tensor dk_out;     // [M, K, N] any float
  Tensor dq;         // [M, H, N] any float (normally q's), optional; may be exactly dq_out
  Tensor dk;         // [M, K, N] any float, optional; may be exactly dk_out
  Tensor dq_weight;  // [N] any float, optional
  Tensor dk_weight;  // [N] any float, optional
  float weight_offset = 0;
};

template <class V>
void describe(V& v, QkNormBackward& a) {
  v.attribute("weight_offset", a.weight_offset);
  const Dim M = v.dim("M"), H = v.dim("H"), K = v.dim("K"), N = v.dim("N");
  constexpr Rule wanted{.presence = Presence::expected};
  constexpr Rule statistic{.types = kF32, .content = {Content::positive}};
  v.input("q", a.q, {M, H, N});
  v.input("k", a.k, {M, K, N}, {.like = &a.q});
  v.input("q_weight", a.q_weight, {N}, wanted);
  v.input("k_weight", a.k_weight, {N}, wanted);
  v.input("q_rstd", a.q_rstd, {M, H}, statistic);
  v.input("k_rstd", a.k_rstd, {M, K}, statistic);
  v.input("dq_out", a.dq_out, {M, H, N});
  v.input("dk_out", a.dk_out, {M, K, N});
  v.output("dq", a.dq, {M, H, N}, {.presence = Presence::expected, .alias = &a.dq_out});
  v.output("dk", a.dk, {M, K, N}, {.presence = Presence::expected, .alias = &a.dk_out});
  v.output("dq_weight", a.dq_weight, {N}, {.presence = Presence::expected, .with = &a.q_weight});
  v.output("dk_weight", a.dk_weight, {N}, {.presence = Presence::expected, .with = &a.k_weight});
}

Status check(const QkNormBackward&);
size_t workspace_bytes(const QkNormBackward&);
Status run(const QkNormBackward&, Workspace, Stream);

namespace detail {
// One of the two as the norm that it is.
inline RmsNormForward norm_of(const QkNormForward& a, const Tensor& x, const Tensor& weight, const Tensor& y, const Tensor& rstd) {
  RmsNormForward norm;
  norm.x = x;
  norm.weight = weight;
  norm.y = y;
  norm.rstd = rstd;
  norm.eps = a.eps;
  norm.weight_offset = a.weight_offset;
  return norm;
}
inline RmsNormBackward norm_of(const QkNormBackward& a, const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& dy,
                               const Tensor& dx, const Tensor& dweight) {
  RmsNormBackward norm;
  norm.x = x;
  norm.weight = weight;
  norm.rstd = rstd;
  norm.dy = dy;
  norm.dx = dx;
  norm.dweight = dweight;
  norm.weight_offset = a.weight_offset;
  return norm;
}
inline RmsNormForward q_norm(const QkNormForward& a) { return norm_of(a, a.q, a.q_weight, a.q_out, a.q_rstd); }
inline RmsNormForward k_norm(const QkNormForward& a) { return norm_of(a, a.k, a.k_weight, a.k_out, a.k_rstd); }
inline RmsNormBackward q_norm(const QkNormBackward& a) {
  return norm_of(a, a.q, a.q_weight, a.q_rstd, a.dq_out, a.dq, a.dq_weight);
}
inline RmsNormBackward k_norm(const QkNormBackward& a) {
  return norm_of(a, a.k, a.k_weight, a.k_rstd, a.dk_out, a.dk, a.dk_weight);
}
}  // namespace detail

}  // namespace fla
