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

// Losses of policies on the log-probabilities of their samples: clipped (grpo_clip_loss, as the defaults have it), CISPO
// and SAPO. In fp32, for a token of sequence b that the mask keeps, n_b of them in the sequence:
//
//   x = logp - old_logp, 0 without old_logps             (through which the gradient flows all the same)
//   rho = e^x                                            level = token
//       = e^(mean of x over the sequence)                level = sequence (GSPO)
//   A = advantages_b, token_advantages, or from rewards: (r_b - mean r) / (std r + 1e-8) over groups of group_size
//       sequences, std with group_size - 1; exactly 0, with gradient 0, where all rewards of a group are equal
//   clip   p = -min(A min(rho, delta), A clip(rho, 1 - epsilon_low, 1 + epsilon_high))      Schulman et al. 2017
//   cispo  p = -stop_gradient(min(rho, epsilon_high)) A logp                                MiniMax 2025
//   sapo   p = -A 4 / tau sigmoid(tau (rho - 1)), tau = A > 0 ? tau_positive : tau_negative   Gao et al. 2025
//   D = ref_logp - logp, kl = e^D - D - 1; kl_by_ratio: times e^x, the ratio of the token   Schulman 2020; DeepSeek 2025
//   loss = sum over tokens of (mismatch_ratio p + beta kl) s_b / N
//
//   normalization       s_b       N
//   bnpo                1         kept tokens of all sequences
//   grpo                1 / n_b   B                            Shao et al. 2024; n_b at least 1
//   dr_grpo             1         B max_tokens                 Liu et al. 2025
//   dapo                1         max(normalizer, 1)           Yu et al. 2025; the tokens of all ranks over the ranks
//   luspo               n_b       B L
//
// A ratio at its bound counts as inside, and its gradient flows. Masked tokens are not looked at and have gradient 0. On
// the policy's own samples (logp == old_logp) rho is exactly 1; where logp == ref_logp kl is exactly 0. N = 0, which only
// a batch without tokens has, gives loss 0 (or NaN, as empty_mean says) and gradients 0. An overflowing exponential is
// infinite, as the definition is.
//
// Deterministic: sums in an order that B, L and group_size decide; no host synchronisation; two launches at most.
// Tensors of tokens have a free row stride and any alignment; 16-byte accesses where those allow.
enum class PolicyObjective : int32_t { clip, cispo, sapo };
enum class PolicyLevel : int32_t { token, sequence };
inline constexpr const char* kPolicyLevelNames[] = {"token", "sequence"};
enum class PolicyNormalization : int32_t { bnpo, grpo, dr_grpo, dapo, luspo };
inline constexpr const char* kPolicyNormalizationNames[] = {"bnpo", "grpo", "dr_grpo", "dapo", "luspo"};

// What both directions take. Errors: as validation; null_pointer without advantages of any kind, for ref_logps when beta
// is not 0 or mean_kl is asked for, and for dapo's normalizer; invalid_argument for two kinds of advantages, a group_size
// that does not divide B or is 1, delta below 1 + epsilon_high, and a normalizer without dapo.
struct PolicyLossCall {
  Tensor logps;             // [B, L] f32/f16/bf16, of the sampled tokens
  Tensor ref_logps;         // [B, L] likewise, optional when beta = 0
  Tensor old_logps;         // [B, L] likewise, optional: the policy is that of the samples
  Tensor pad_mask;          // [B, L] float, u8 or i32, not zero: keep; optional
  Tensor rewards;           // [B] f32/f16/bf16; or
  Tensor advantages;        // [B] likewise; or
  Tensor token_advantages;  // [B, L] likewise
  Tensor mismatch_ratio;    // [B, L] likewise, optional: trainer over sampler, a constant
  Tensor normalizer;        // [1] f32, of dapo
  PolicyObjective kind = PolicyObjective::clip;
  PolicyLevel level = PolicyLevel::token;
  PolicyNormalization normalization = PolicyNormalization::bnpo;
  EmptyMean empty_mean = EmptyMean::zero;
  bool kl_by_ratio = false;
  int64_t group_size = 0;    // 0: B
  int64_t max_tokens = 0;    // of dr_grpo; 0: L
  float beta = 0.2f;
  float epsilon_low = 0.2f;   // [0, 1)
  float epsilon_high = 0.2f;  // [0, 1); of cispo > 0, and the bound itself
  float delta = std::numeric_limits<float>::infinity();
  float tau_positive = 1, tau_negative = 1.05f;  // > 0
};

template <class V>
void describe_call(V& v, PolicyLossCall& a, Dim B, Dim L) {
  constexpr double kBelowOne = 0x1.fffffep-1;
  v.option("level", a.level, kPolicyLevelNames);
  v.option("normalization", a.normalization, kPolicyNormalizationNames);
  v.option("empty_mean", a.empty_mean, kEmptyMeanNames);
  v.attribute("kl_by_ratio", a.kl_by_ratio);
  v.attribute("group_size", a.group_size, {.min = 0});
  v.attribute("max_tokens", a.max_tokens, {.min = 0});
  v.attribute("beta", a.beta);
  if (a.kind == PolicyObjective::clip) {
    v.attribute("epsilon_low", a.epsilon_low, {.min = 0, .max = kBelowOne});
    v.attribute("epsilon_high", a.epsilon_high, {.min = 0, .max = kBelowOne});
    v.attribute("delta", a.delta, {.allow_infinite = true});
  } else if (a.kind == PolicyObjective::cispo) {
    v.attribute("epsilon_high", a.epsilon_high, {.min = 0, .exclude_min = true});
  } else {
    v.attribute("tau_positive", a.tau_positive, {.min = 0, .exclude_min = true});
    v.attribute("tau_negative", a.tau_negative, {.min = 0, .exclude_min = true});
  }
  v.input("logps", a.logps, {B, L});
  v.input("ref_logps", a.ref_logps, {B, L}, {.presence = Presence::expected});
  v.input("old_logps", a.old_logps, {B, L}, {.presence = Presence::expected});
  v.input("pad_mask", a.pad_mask, {B, L},
          {.presence = Presence::expected, .types = kMaskTypes, .content = {Content::mask}});
  v.input("rewards", a.rewards, {B}, {.presence = Presence::expected});
  v.input("advantages", a.advantages, {B}, {.presence = Presence::optional});
  v.input("token_advantages", a.token_advantages, {B, L}, {.presence = Presence::optional});
  v.input("mismatch_ratio", a.mismatch_ratio, {B, L}, {.presence = Presence::optional, .content = {Content::positive}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
}

// Workspace: 16 bytes per sequence.
struct PolicyLossForward : PolicyLossCall {
  Tensor loss;           // [1] f32
  Tensor mean_kl;        // [1] f32, optional, for logging: mean of kl over kept tokens; 0 where there are none
  Tensor clip_fraction;  // [1] f32, optional, for logging: share of kept tokens whose ratio was cut; of sapo 0
  Tensor lengths;        // [B] f32, saved for backward: n_b
};

template <class V>
void describe(V& v, PolicyLossForward& a) {
  const Dim B = v.dim("B"), L = v.dim("L");
  describe_call(v, a, B, L);
  v.output("loss", a.loss, {1}, {.types = kF32});
  v.output("mean_kl", a.mean_kl, {1}, {.presence = Presence::optional, .types = kF32});
  v.output("clip_fraction", a.clip_fraction, {1}, {.presence = Presence::optional, .types = kF32});
  v.saved("lengths", a.lengths, {B}, {.presence = Presence::expected, .types = kF32});
}

Status check(const PolicyLossForward&);
size_t workspace_bytes(const PolicyLossForward&);
Status run(const PolicyLossForward&, Workspace, Stream);

// Gradients, each formed in fp32 and rounded once. Those of one token, with g = dloss mismatch_ratio s_b / N and h = dloss
// beta s_b / N, p' = dp / dx (0 where clipped):
//
//   clip   p' = -A rho                      sapo  p' = -4 A sigmoid (1 - sigmoid) rho          cispo  p' = 0
//   dlogp = g p' + h (1 - e^D),  dold_logp = -g p',  dref_logp = h (e^D - 1);  cispo: dlogp -= g min(rho, epsilon_high) A
//
// level = sequence puts the sequence's sum of g p' over n_b in place of g p'; kl_by_ratio makes of h's factors -e^x D, and
// e^x (e^D - 1) for the reference and -e^x kl for the old. With k_b the sequence's sum of g dp / dA, over the group of G,
//
//   dreward_b = (k_b - mean k) / (std + 1e-8) - (sum k A) (r_b - mean r) / ((G - 1) std (std + 1e-8))
//
// Workspace: 4 bytes per sequence for drewards, else none.
struct PolicyLossBackward : PolicyLossCall {
  Tensor lengths;     // [B] f32, from forward
  Tensor dloss;       // [1] f32
  Tensor dlogps;      // [B, L] dtype of logps
  Tensor dref_logps;  // [B, L] dtype of ref_logps, optional
  Tensor dold_logps;  // [B, L] dtype of old_logps, optional
  Tensor drewards;    // [B] f32, optional
};

template <class V>
void describe(V& v, PolicyLossBackward& a) {
  const Dim B = v.dim("B"), L = v.dim("L");
  describe_call(v, a, B, L);
  v.input("lengths", a.lengths, {B}, {.types = kF32});
  v.input("dloss", a.dloss, {1}, {.types = kF32});
  v.output("dlogps", a.dlogps, {B, L}, {.like = &a.logps});
  v.output("dref_logps", a.dref_logps, {B, L},
           {.presence = Presence::optional, .like = &a.ref_logps, .with = &a.ref_logps});
  v.output("dold_logps", a.dold_logps, {B, L},
           {.presence = Presence::optional, .like = &a.old_logps, .with = &a.old_logps});
  v.output("drewards", a.drewards, {B}, {.presence = Presence::optional, .types = kF32, .with = &a.rewards});
}

Status check(const PolicyLossBackward&);
size_t workspace_bytes(const PolicyLossBackward&);
Status run(const PolicyLossBackward&, Workspace, Stream);

}  // namespace fla
