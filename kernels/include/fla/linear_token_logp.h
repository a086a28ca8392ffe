// Log-probabilities of given tokens and their entropy from hidden states, without the [T, V] logits in memory: what
// policy-gradient and preference losses start from.
#pragma once

#include "fla/linear_loss.h"
#include "fla/token_logp.h"

namespace fla {

// SelectiveLogSoftmaxForward's formula, label rules and chain, with logit_scale = 1 / temperature, of
//
//   logits = x weight^T + bias       fp32 sums, rounded once to the dtype of x
//
// Strategies and the choice between them as linear cross entropy. Workspace: as there with reduction none, and
//   lean  4 T n more for the entropy
//   both  4 T for the maxima behind argmax
// Where lean merges the entropies of chunks by their fp32 log-sum-exps, an error d of those moves the entropy by 2 d of it.
// Errors: as validation; unsupported_shape when V < 1 or H < 1; bad_stride for matrices whose rows overlap. Deterministic,
// no host synchronisation.
struct LinearTokenLogpOptions : LogitChainOptions {
  int64_t ignore_index = -100;
  LinearLossStrategy strategy = LinearLossStrategy::automatic;
  int64_t chunk = 0;            // tokens of fast, classes of lean; 0: chosen
  int64_t workspace_limit = 0;  // bytes; 0: none
};

template <class V>
void describe_options(V& v, LinearTokenLogpOptions& a) {
  describe_options(v, static_cast<LogitChainOptions&>(a));
  v.attribute("ignore_index", a.ignore_index);
  describe_strategy(v, a);
}

// 2 T H V flops, either strategy.
struct LinearTokenLogpForward : LinearTokenLogpOptions {
  Tensor x;               // [T, H] f32/f16/bf16
  Tensor weight;          // [V, H] dtype of x
  Tensor bias;            // [V] dtype of x, optional
  Tensor labels;          // [T] i32/i64: the tokens
  Tensor logp;            // [T] f32
  Tensor entropy;         // [T] f32, optional
  Tensor argmax;          // [T] i32, optional: L2WarpForward's, of every token, whatever its label
  Tensor lse;             // [T] f32, saved for backward, optional
  Tensor invalid_labels;  // [2] i64, optional: as CrossEntropyForward
};

template <class V>
void describe(V& v, LinearTokenLogpForward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), H = v.dim("H"), classes = v.dim("V");
  detail::describe_linear_logits(v, a, T, H, classes);
  v.output("logp", a.logp, {T}, {.types = kF32});
  v.output("entropy", a.entropy, {T}, {.presence = Presence::optional, .types = kF32});
  v.output("argmax", a.argmax, {T}, {.presence = Presence::optional, .types = only(DType::i32)});
  v.saved("lse", a.lse, {T}, {.presence = Presence::expected, .types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

LinearLossPlan plan(const LinearTokenLogpForward&);
Status check(const LinearTokenLogpForward&);
size_t workspace_bytes(const LinearTokenLogpForward&);
Status run(const LinearTokenLogpForward&, Workspace, Stream);

// Logits are made again. With dlogits as SelectiveLogSoftmaxBackward forms them, rounded once to the dtype of x:
//
//   dx = dlogits weight    dweight = dlogits^T x    dbias = sum_t dlogits      (accumulate: +=)
//
// fp32 sums, one rounding at the end. Only the gradients whose pointers are set are computed. T = 0 writes zeros to
// dweight and dbias. 6 T H V flops. Errors also: null_pointer when dentropy comes without entropy; invalid_argument
// when no gradient is asked for.
struct LinearTokenLogpBackward : LinearTokenLogpOptions {
  Tensor x, weight, bias, labels;  // as forward
  Tensor lse;                      // [T] f32, from forward
  Tensor entropy;                  // [T] f32, from forward, needed with dentropy
  Tensor dlogp;                    // [T] f32
  Tensor dentropy;                 // [T] f32, optional
  Tensor dx;                       // [T, H] dtype of x, or f32
  Tensor dweight;                  // [V, H] any float; f32 costs no scratch
  Tensor dbias;                    // [V] any float
  bool accumulate = false;         // add to dweight and dbias, which are f32 then
};

template <class V>
void describe(V& v, LinearTokenLogpBackward& a) {
  describe_options(v, a);
  v.attribute("accumulate", a.accumulate);
  const Dim T = v.dim("T"), H = v.dim("H"), classes = v.dim("V");
  detail::describe_linear_logits(v, a, T, H, classes);
  v.input("lse", a.lse, {T}, {.types = kF32});
  v.input("entropy", a.entropy, {T}, {.presence = Presence::optional, .types = kF32});
  v.input("dlogp", a.dlogp, {T}, {.types = kF32});
  v.input("dentropy", a.dentropy, {T}, {.presence = Presence::optional, .types = kF32, .with = &a.entropy});
  detail::describe_linear_loss_gradients(v, a, T, H, classes);
}

LinearLossPlan plan(const LinearTokenLogpBackward&);
Status check(const LinearTokenLogpBackward&);
size_t workspace_bytes(const LinearTokenLogpBackward&);
Status run(const LinearTokenLogpBackward&, Workspace, Stream);

}  // namespace fla
