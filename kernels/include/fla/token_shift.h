// Token shift, the difference to the token before, and the lerps towards it that RWKV makes of it.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// What every token shift says of itself.
//
//   prev(t) = x[t - 1] inside the sequence; cache[n] at its first token, 0 where no cache is given
//   cache_out[n] = the sequence's last x; cache[n] (or 0) where it has no tokens
//
// Sequences are the B rows, or with cu_seqlens the N packed pieces of one row ([1, T, D] or [T, D]); empty ones are
// legal. cache_out of one call is the cache of the next: a sequence cut anywhere gives the same bits. cu_seqlens of
// any content stays in bounds (as in fla/conv.h); tokens in no sequence get outputs and gradients of 0. All token
// tensors have free strides, inner stride included (slow path). Deterministic.
// Errors: as validation (outputs may not overlap x: the shift is not in-place safe); shape_mismatch for cu_seqlens with
// B != 1.

// y[t] = prev(t) - x[t]; one operation in fp32, one rounding. RWKV's "delta" (Peng et al. 2023, arXiv 2305.13048).
struct TokenShiftForward {
  Tensor x;           // [B, T, D] or [T, D]; f32/f16/bf16
  Tensor cache;       // [N, D] dtype of x, optional
  Tensor cu_seqlens;  // [N + 1] i32/i64, optional
  Tensor y;           // [B, T, D] dtype of x
  Tensor cache_out;   // [N, D] dtype of x, optional; may be exactly cache
};

template <class V>
void describe(V& v, TokenShiftForward& a) {
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D");
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B;
  v.input("x", a.x, {B, T, D}, {.any_inner_stride = true});
  v.input("cache", a.cache, {N, D},
          {.presence = Presence::optional, .like = &a.x, .any_inner_stride = true});
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.output("y", a.y, {B, T, D}, {.like = &a.x, .any_inner_stride = true});
  v.output("cache_out", a.cache_out, {N, D},
           {.presence = Presence::optional, .like = &a.x, .alias = &a.cache, .any_inner_stride = true});
}

Status check(const TokenShiftForward&);
size_t workspace_bytes(const TokenShiftForward&);
Status run(const TokenShiftForward&, Workspace, Stream);

// The forward with time reversed:
//
//   dx[t] = dy[t + 1] - dy[t]; at the last token dcache_out[n] (or 0) stands for dy[t + 1]
//   dcache[n] = the sequence's first dy; dcache_out[n] (or 0) where it has no tokens
//
// dy may be broadcast (strides 0). At least one output is required.
struct TokenShiftBackward {
  Tensor cu_seqlens;  // as forward
  Tensor dy;          // [B, T, D] or [T, D]; f32/f16/bf16
  Tensor dcache_out;  // [N, D] dtype of dy, optional
  Tensor dx;          // [B, T, D] dtype of dy
  Tensor dcache;      // [N, D] dtype of dy, optional
};

template <class V>
void describe(V& v, TokenShiftBackward& a) {
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D");
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B;
  const Rule edge{.presence = Presence::optional, .like = &a.dy, .any_inner_stride = true};
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.input("dy", a.dy, {B, T, D}, {.any_inner_stride = true});
  v.input("dcache_out", a.dcache_out, {N, D}, edge);
  v.output("dx", a.dx, {B, T, D}, {.presence = Presence::expected, .like = &a.dy, .any_inner_stride = true});
  v.output("dcache", a.dcache, {N, D}, edge);
}

Status check(const TokenShiftBackward&);
size_t workspace_bytes(const TokenShiftBackward&);
Status run(const TokenShiftBackward&, Workspace, Stream);

inline constexpr int64_t kMostShiftMixes = 32;

// K lerps between a token and the one before, as RWKV feeds its projections (Peng et al. 2024, arXiv 2404.05892):
//
//   y[k, t] = x[t] + (prev(t) - x[t]) mu[k]
//
// The difference is rounded to fp32 only, then one FMA and one rounding. The K outputs lie in one tensor.
// Errors: unsupported_shape for K > 32.
struct TokenShiftMixForward {
  Tensor x;           // [B, T, D] or [T, D]; f32/f16/bf16
  Tensor mu;          // [K, D] any float
  Tensor cache;       // [N, D] dtype of x, optional
  Tensor cu_seqlens;  // [N + 1] i32/i64, optional
  Tensor y;           // [K, B, T, D] or [K, T, D] dtype of x
  Tensor cache_out;   // [N, D] dtype of x, optional; may be exactly cache
};

template <class V>
void describe(V& v, TokenShiftMixForward& a) {
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D"), K = v.dim("K", 6);
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B;
  v.input("x", a.x, {B, T, D}, {.any_inner_stride = true});
  v.input("mu", a.mu, {K, D});
  v.input("cache", a.cache, {N, D},
          {.presence = Presence::optional, .like = &a.x, .any_inner_stride = true});
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.output("y", a.y, {K, B, T, D}, {.like = &a.x, .any_inner_stride = true});
  v.output("cache_out", a.cache_out, {N, D},
           {.presence = Presence::optional, .like = &a.x, .alias = &a.cache, .any_inner_stride = true});
}

Status check(const TokenShiftMixForward&);
size_t workspace_bytes(const TokenShiftMixForward&);
Status run(const TokenShiftMixForward&, Workspace, Stream);

// With P[t] = sum_k dy[k, t] mu[k]:
//
//   dx[t] = sum_k dy[k, t] (1 - mu[k]) + P[t + 1]; at the last token dcache_out[n] (or 0) stands for P[t + 1]
//   dcache[n] = P of the first token; dcache_out[n] (or 0) where the sequence has no tokens
//   dmu[k] = sum_t dy[k, t] (prev(t) - x[t])
//
// dmu: fp32 partial sums in an order that only the shape decides, rounded once. Only the gradients whose pointers are
// set are computed; at least one is required. dy may be broadcast (strides 0). Workspace: the partial sums.
struct TokenShiftMixBackward {
  Tensor x, mu, cache, cu_seqlens;  // as forward
  Tensor dy;                        // [K, B, T, D] or [K, T, D] dtype of x
  Tensor dcache_out;                // [N, D] dtype of x, optional
  Tensor dx;                        // [B, T, D] dtype of x
  Tensor dmu;                       // [K, D] any float
  Tensor dcache;                    // [N, D] dtype of x, optional
};

template <class V>
void describe(V& v, TokenShiftMixBackward& a) {
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D"), K = v.dim("K", 6);
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B;
  const Rule edge{.presence = Presence::optional, .like = &a.x, .any_inner_stride = true};
  v.input("x", a.x, {B, T, D}, {.any_inner_stride = true});
  v.input("mu", a.mu, {K, D});
  v.input("cache", a.cache, {N, D}, edge);
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.input("dy", a.dy, {K, B, T, D}, {.like = &a.x, .any_inner_stride = true});
  v.input("dcache_out", a.dcache_out, {N, D}, edge);
  v.output("dx", a.dx, {B, T, D}, {.presence = Presence::expected, .like = &a.x, .any_inner_stride = true});
  v.output("dmu", a.dmu, {K, D}, {.presence = Presence::expected});
  v.output("dcache", a.dcache, {N, D}, edge);
}

Status check(const TokenShiftMixBackward&);
size_t workspace_bytes(const TokenShiftMixBackward&);
Status run(const TokenShiftMixBackward&, Workspace, Stream);

}  // namespace fla
