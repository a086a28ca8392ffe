// Short causal convolutions.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

enum class ConvActivation : int32_t { none, silu };
inline constexpr const char* kConvActivationNames[] = {"none", "silu"};

// Causal depthwise convolution over time, channel-last, with bias, SiLU, residual and carried state:
//
//   X(t) = mask[t] x[t] inside the sequence; initial_state[n, d, S + t] for -S <= t < 0; 0 before that
//   z[t] = bias + sum_{k < W} weight[d, k] X(t - (W - 1) + k)
//   y[t] = act(z[t]) + residual[t]
//   final_state[n, d, c] = X(L - S + c),  c = 0 .. S-1          L the length of sequence n
//
// fp32, bias first and taps in ascending k, one rounding at the store: prefill, chunked prefill and decode agree
// bit for bit when the state has x's dtype. Sequences are the B rows, or with cu_seqlens the N packed pieces of
// one row ([1, T, D] or [T, D]); empty ones are legal. Taps never cross a sequence start. With seq_idx a tap sees another token
// of its row only where the ids of both are equal, wherever they stand (else it sees 0); tokens of negative ids are padding:
// their y and all their gradients are 0, and their y has no residual.
// Used by Mamba, GDN, KDA, GLA (Gu & Dao 2023, arXiv 2312.00752). B rows, T tokens, D channels, W taps, N
// sequences, S >= W - 1 state slots. All activation tensors have free strides, inner stride included (slow path).
//
// cu_seqlens of any content stays in bounds: entries are clamped into [previous, T]. Tokens before the first entry or
// at or past the last belong to no sequence: their y and all their gradients are 0. Deterministic, no workspace.
// Errors: as validation; invalid_argument for W < 1; shape_mismatch for S < W - 1, or cu_seqlens with B != 1;
// unsupported_combination for mask with cu_seqlens, and for seq_idx with cu_seqlens or a state.
struct CausalConv1dForward {
  Tensor x;              // [B, T, D] or [T, D]; f32/f16/bf16
  Tensor weight;         // [D, W] any float
  Tensor bias;           // [D] any float, optional
  Tensor residual;       // [B, T, D] any float, optional; added after the activation
  Tensor initial_state;  // [N, D, S] any float, optional
  Tensor cu_seqlens;     // [N + 1] i32/i64, optional
  Tensor seq_idx;        // [B, T] i32, optional; any content
  Tensor mask;           // [B, T] f32/f16/bf16/u8/i32, optional; multiplies x
  Tensor y;              // [B, T, D] dtype of x
  Tensor final_state;    // [N, D, S] any float, optional; may be exactly initial_state
  ConvActivation activation = ConvActivation::none;
};

template <class V>
void describe(V& v, CausalConv1dForward& a) {
  v.option("activation", a.activation, kConvActivationNames);
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D"), W = v.dim("W", 4);
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B, S = v.dim("S", W);
  constexpr Rule extra{.presence = Presence::optional, .any_inner_stride = true};
  v.input("x", a.x, {B, T, D}, {.any_inner_stride = true});
  v.input("weight", a.weight, {D, W});
  v.input("bias", a.bias, {D}, {.presence = Presence::optional});
  v.input("residual", a.residual, {B, T, D}, extra);
  v.input("initial_state", a.initial_state, {N, D, S}, extra);
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.input("seq_idx", a.seq_idx, {B, T},
          {.presence = Presence::optional, .types = only(DType::i32), .content = {Content::groups}});
  v.input("mask", a.mask, {B, T},
          {.presence = Presence::optional, .types = kMaskTypes, .content = {Content::mask}});
  v.output("y", a.y, {B, T, D}, {.like = &a.x, .any_inner_stride = true});
  v.output("final_state", a.final_state, {N, D, S},
           {.presence = Presence::optional, .alias = &a.initial_state, .any_inner_stride = true});
}

Status check(const CausalConv1dForward&);
size_t workspace_bytes(const CausalConv1dForward&);
Status run(const CausalConv1dForward&, Workspace, Stream);

// Backward; z is recomputed from x in fp32, never stored. With g[t] = dy[t] act'(z[t]):
//
//   dx[t] = mask[t] (sum_{j < W, t + j < L} weight[W-1-j] g[t+j] + dfinal_state[t + S - L] if t + S >= L)
//   dweight[k] = sum g[t] X(t - (W - 1) + k) ;  dbias = sum g[t] ;  dresidual[t] = dy[t]
//   dinitial_state[c] = sum_{t < L, t <= W-1-S+c} weight[W-1-(t+S-c)] g[t] + (dfinal_state[c - L] if c >= L)
//
// Parameter gradients: fp32 partial sums in an order that only the shape decides, rounded once. Only the
// gradients whose pointers are set are computed; at least one is required. dy may be broadcast (strides 0).
// Workspace: the partial sums, workspace_bytes(args).
struct CausalConv1dBackward {
  Tensor x, weight, bias, initial_state, cu_seqlens, seq_idx, mask;  // as forward
  Tensor dy;              // [B, T, D] any float
  Tensor dfinal_state;    // [N, D, S] any float, optional
  Tensor dx;              // [B, T, D] any float (normally x's)
  Tensor dweight;         // [D, W] any float
  Tensor dbias;           // [D] any float
  Tensor dresidual;       // [B, T, D] any float, optional
  Tensor dinitial_state;  // [N, D, S] any float, optional
  ConvActivation activation = ConvActivation::none;
};

template <class V>
void describe(V& v, CausalConv1dBackward& a) {
  v.option("activation", a.activation, kConvActivationNames);
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D"), W = v.dim("W", 4);
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B, S = v.dim("S", W);
  constexpr Rule extra{.presence = Presence::optional, .any_inner_stride = true};
  v.input("x", a.x, {B, T, D}, {.any_inner_stride = true});
  v.input("weight", a.weight, {D, W});
  v.input("bias", a.bias, {D}, {.presence = Presence::optional});
  v.input("initial_state", a.initial_state, {N, D, S}, extra);
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.input("seq_idx", a.seq_idx, {B, T},
          {.presence = Presence::optional, .types = only(DType::i32), .content = {Content::groups}});
  v.input("mask", a.mask, {B, T},
          {.presence = Presence::optional, .types = kMaskTypes, .content = {Content::mask}});
  v.input("dy", a.dy, {B, T, D}, {.any_inner_stride = true});
  v.input("dfinal_state", a.dfinal_state, {N, D, S}, extra);
  v.output("dx", a.dx, {B, T, D}, {.presence = Presence::expected, .any_inner_stride = true});
  v.output("dweight", a.dweight, {D, W}, {.presence = Presence::expected});
  v.output("dbias", a.dbias, {D}, {.presence = Presence::expected, .with = &a.bias});
  v.output("dresidual", a.dresidual, {B, T, D}, extra);
  v.output("dinitial_state", a.dinitial_state, {N, D, S},
           {.presence = Presence::expected, .with = &a.initial_state, .any_inner_stride = true});
}

Status check(const CausalConv1dBackward&);
size_t workspace_bytes(const CausalConv1dBackward&);
Status run(const CausalConv1dBackward&, Workspace, Stream);

// The final state alone: final_state[n, d, c] = X(L - S + c). Forward only. S >= 1.
struct CausalConv1dStates {
  Tensor x;              // [B, T, D] or [T, D]
  Tensor initial_state;  // [N, D, S] any float, optional
  Tensor cu_seqlens;     // [N + 1] i32/i64, optional
  Tensor final_state;    // [N, D, S] dtype of x; may be exactly initial_state
};

template <class V>
void describe(V& v, CausalConv1dStates& a) {
  const Dim B = v.dim("B", 1), T = v.dim("T"), D = v.dim("D");
  const Dim N = a.cu_seqlens ? v.dim("N", 4) : B, S = v.dim("S", 4);
  v.input("x", a.x, {B, T, D}, {.any_inner_stride = true});
  v.input("initial_state", a.initial_state, {N, D, S},
          {.presence = Presence::optional, .any_inner_stride = true});
  v.input("cu_seqlens", a.cu_seqlens, {N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, T}});
  v.output("final_state", a.final_state, {N, D, S},
           {.like = &a.x, .alias = &a.initial_state, .any_inner_stride = true});
}

Status check(const CausalConv1dStates&);
size_t workspace_bytes(const CausalConv1dStates&);
Status run(const CausalConv1dStates&, Workspace, Stream);

// Decode step of N sequences, M tokens each: the tokens follow the S of the sequence's state,
//
//   c = [conv_state[q], mask x[0], .., mask x[M - 1]],  q = n, or conv_state_indices[n]
//   y[i] = act(bias + sum_{k < W} weight[k] c[S + i - (W - 1) + k]) + residual[i]
//   conv_state[q] = the last S of c
//
// where tokens of this call are taps in fp32, not as copies rounded to the state's dtype. S >= W - 1. For continuous
// batching conv_state_indices names the slot of each sequence in a pool of Q; a sequence at pad_slot, or anywhere outside
// the pool, has y = 0 and touches no state. Two sequences in one slot are the caller's error.
struct CausalConv1dUpdate {
  Tensor x;                   // [N, M, D] or [N, D]; f32/f16/bf16
  Tensor weight;              // [D, W] any float
  Tensor bias;                // [D] any float, optional
  Tensor residual;            // [N, M, D] any float, optional
  Tensor mask;                // [N, M] f32/f16/bf16/u8/i32, optional
  Tensor conv_state_indices;  // [N] i32, optional
  Tensor conv_state;          // [Q, D, S] any float, Q = N without indices; updated in place
  Tensor y;                   // [N, M, D] dtype of x
  ConvActivation activation = ConvActivation::none;
  int64_t pad_slot = -1;
};

template <class V>
void describe(V& v, CausalConv1dUpdate& a) {
  v.option("activation", a.activation, kConvActivationNames);
  v.attribute("pad_slot", a.pad_slot);
  const Dim N = v.dim("N"), M = v.dim("M", 1), D = v.dim("D"), W = v.dim("W", 4), S = v.dim("S", W);
  const Dim Q = a.conv_state_indices ? v.dim("Q", N) : N;
  v.input("x", a.x, {N, M, D}, {.any_inner_stride = true});
  v.input("weight", a.weight, {D, W});
  v.input("bias", a.bias, {D}, {.presence = Presence::optional});
  v.input("residual", a.residual, {N, M, D}, {.presence = Presence::optional, .any_inner_stride = true});
  v.input("mask", a.mask, {N, M}, {.presence = Presence::optional, .types = kMaskTypes, .content = {Content::mask}});
  v.input("conv_state_indices", a.conv_state_indices, {N},
          {.presence = Presence::optional, .types = only(DType::i32), .content = {Content::slots, Q, a.pad_slot}});
  v.inout("conv_state", a.conv_state, {Q, D, S}, {.any_inner_stride = true});
  v.output("y", a.y, {N, M, D}, {.like = &a.x, .any_inner_stride = true});
}

Status check(const CausalConv1dUpdate&);
size_t workspace_bytes(const CausalConv1dUpdate&);
Status run(const CausalConv1dUpdate&, Workspace, Stream);

}  // namespace fla
