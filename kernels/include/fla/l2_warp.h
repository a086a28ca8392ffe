// RWKV's penalty on the largest logit of every token.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// The loss is not changed; only the gradient of  factor / (2 num_tokens) sum_t max_v(logits[t, v])^2  is added to that of the
// logits. Two steps, of the raw logits: before scale and soft cap.
//
//   max[t] = max_v logits[t, v]      argmax[t] = the first v that has it; a NaN is larger than every number
//
// V is the whole vocabulary. BlinkDL, RWKV-LM (L2Wrap). Errors: as validation; unsupported_shape when V < 1. No workspace.
struct L2WarpForward {
  Tensor logits;  // [T, V] f32/f16/bf16, any row stride and alignment
  Tensor max;     // [T] f32
  Tensor argmax;  // [T] i32
};

template <class V>
void describe(V& v, L2WarpForward& a) {
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.output("max", a.max, {T}, {.types = kF32});
  v.output("argmax", a.argmax, {T}, {.types = only(DType::i32)});
}

Status check(const L2WarpForward&);
inline size_t workspace_bytes(const L2WarpForward&) { return 0; }
Status run(const L2WarpForward&, Workspace, Stream);

// dlogits[t, argmax[t]] += dloss factor / num_tokens max[t]        fp32, rounded once; all others stay
//
// num_tokens counts ignored tokens too. An argmax outside [0, V) changes nothing. Errors: as validation; invalid_argument
// when num_tokens is negative. No workspace.
struct L2WarpAdd {
  Tensor max;      // [T] f32, from forward
  Tensor argmax;   // [T] i32, from forward
  Tensor dloss;    // [1] f32, optional: 1
  Tensor dlogits;  // [T, V] f32/f16/bf16, added to
  float factor = 1e-4f;    // >= 0
  int64_t num_tokens = 0;  // 0: T
};

template <class V>
void describe(V& v, L2WarpAdd& a) {
  v.attribute("factor", a.factor, {.min = 0});
  v.attribute("num_tokens", a.num_tokens, {.min = 0});
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("max", a.max, {T}, {.types = kF32});
  v.input("argmax", a.argmax, {T}, {.types = only(DType::i32), .content = {Content::labels, classes, -1}});
  v.input("dloss", a.dloss, {1}, {.presence = Presence::optional, .types = kF32});
  v.inout("dlogits", a.dlogits, {T, classes});
}

Status check(const L2WarpAdd&);
inline size_t workspace_bytes(const L2WarpAdd&) { return 0; }
Status run(const L2WarpAdd&, Workspace, Stream);

// x = x factor: gradients that were formed for an upstream gradient of one, given the real one. fp32, rounded once; when
// factor is 1, nothing is read or written but factor. Errors: as validation. No workspace, no host synchronisation.
struct ScaleInplace {
  Tensor x;       // [M, N] f32/f16/bf16, overwritten
  Tensor factor;  // [1] f32
};

template <class V>
void describe(V& v, ScaleInplace& a) {
  const Dim M = v.dim("M"), N = v.dim("N");
  v.input("factor", a.factor, {1}, {.types = kF32});
  v.inout("x", a.x, {M, N});
}

inline Status check(const ScaleInplace&) { return {}; }
inline size_t workspace_bytes(const ScaleInplace&) { return 0; }
Status run(const ScaleInplace&, Workspace, Stream);

}  // namespace fla
