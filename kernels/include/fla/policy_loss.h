// Losses of reinforcement learning on the log-probabilities of sampled tokens.
#pragma once

#include "fla/loss.h"

namespace fla {

// GRPO of a policy that is on its own samples, straight from its logits. Row l of sequence b predicts the token
// id = input_ids[b, S - L + l]; row L of every sequence is unused. In fp32, for tokens that the mask keeps:
//
//   logp = logits[id] - lse     lse = log sum_v exp(logits_v)
//   D = ref_logp - logp         kl = e^D - D - 1
//   loss = beta kl - advantage  (the ratio of the policy to itself is 1)
//
// and the gradient, through that ratio too:
//
//   dlogp = dloss (beta (1 - e^D) - advantage)     dlogits_v = dlogp ([v == id] - softmax(logits)_v)
//
// Masked tokens give loss, kl, lse and gradient 0, whatever their logits hold; so does row L. An id outside [0, V) gives
// loss and kl NaN, lse and gradient 0, counts in `invalid_labels`, and never forms an address. e^D overflows to
// infinity for D > 88, as the definition does. Shao et al. 2024 (GRPO); Schulman 2020 (the estimator of kl).
//
// Deterministic; no host synchronisation. Rows of logits step evenly over sequences (a strided [B, L + 1, V] whose
// first two dimensions collapse). Workspace: 12 bytes per row of logits.
// Errors: as validation; unsupported_shape when V < 1, L < 1 or S < L; null_pointer when beta != 0 or kl is asked for
// without ref_logp; bad_stride for logits or dlogits whose rows do not step evenly.
struct GrpoLossForward {
  Tensor logits;           // [B, L + 1, V] f32/f16/bf16
  Tensor ref_logp;         // [B, L] f32/f16/bf16, optional when beta = 0
  Tensor input_ids;        // [B, S] i32/i64, prompt and completion
  Tensor advantages;       // [B] f32/f16/bf16
  Tensor completion_mask;  // [B, L] float, u8 or i32, not zero: keep; optional
  Tensor loss;             // [B, L] f32
  Tensor kl;               // [B, L] f32, optional, no gradient flows from it
  Tensor lse;              // [B, L] f32, saved for backward
  Tensor invalid_labels;   // [2] i64, optional: [0] += rows with invalid ids, [1] = min of it and those rows of logits
  float beta = 0.1f;
};

template <class V>
void describe(V& v, GrpoLossForward& a) {
  v.attribute("beta", a.beta);
  const Dim B = v.dim("B"), L = v.dim("L"), classes = v.dim("V"), S = v.dim("S");
  v.input("logits", a.logits, {B, L + 1, classes});
  v.input("ref_logp", a.ref_logp, {B, L}, {.presence = Presence::expected});
  v.input("input_ids", a.input_ids, {B, S}, {.types = kIndex, .content = {Content::labels, classes, -100}});
  v.input("advantages", a.advantages, {B});
  v.input("completion_mask", a.completion_mask, {B, L},
          {.presence = Presence::optional, .types = kMaskTypes, .content = {Content::mask}});
  v.output("loss", a.loss, {B, L}, {.types = kF32});
  v.output("kl", a.kl, {B, L}, {.presence = Presence::optional, .types = kF32});
  v.saved("lse", a.lse, {B, L}, {.presence = Presence::expected, .types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

Status check(const GrpoLossForward&);
size_t workspace_bytes(const GrpoLossForward&);
Status run(const GrpoLossForward&, Workspace, Stream);

// Gradient of the logits from the saved lse. In place (dlogits exactly logits) destroys what was saved.
struct GrpoLossBackward {
  Tensor logits;           // [B, L + 1, V]
  Tensor ref_logp;         // [B, L], optional when beta = 0
  Tensor input_ids;        // [B, S]
  Tensor advantages;       // [B]
  Tensor completion_mask;  // [B, L], optional
  Tensor lse;              // [B, L] f32, from forward
  Tensor dloss;            // [B, L] f32
  Tensor dlogits;          // [B, L + 1, V] dtype of logits; may be exactly logits
  float beta = 0.1f;
};

template <class V>
void describe(V& v, GrpoLossBackward& a) {
  v.attribute("beta", a.beta);
  const Dim B = v.dim("B"), L = v.dim("L"), classes = v.dim("V"), S = v.dim("S");
  v.input("logits", a.logits, {B, L + 1, classes});
  v.input("ref_logp", a.ref_logp, {B, L}, {.presence = Presence::expected});
  v.input("input_ids", a.input_ids, {B, S}, {.types = kIndex, .content = {Content::labels, classes, -100}});
  v.input("advantages", a.advantages, {B});
  v.input("completion_mask", a.completion_mask, {B, L},
          {.presence = Presence::optional, .types = kMaskTypes, .content = {Content::mask}});
  v.input("lse", a.lse, {B, L}, {.types = kF32});
  v.input("dloss", a.dloss, {B, L}, {.types = kF32});
  v.output("dlogits", a.dlogits, {B, L + 1, classes}, {.like = &a.logits, .alias = &a.logits});
}

Status check(const GrpoLossBackward&);
size_t workspace_bytes(const GrpoLossBackward&);
Status run(const GrpoLossBackward&, Workspace, Stream);

}  // namespace fla
