// Losses on given log-probabilities: 13 bytes a token forward and 17 backward in fp32, so that a batch of a few hundred
// thousand tokens is a matter of launches. A block takes a sequence: its advantage, its ratio and its sums never leave
// it, whatever of them the options ask for; a second, small kernel adds up the sequences (forward) or takes the gradient
// of the advantages to the rewards (backward, if asked for). Passes over the tokens: one; one more to find the ratio of
// a sequence; backward one more for what is summed over it. The second and third find them in L1 or L2.
#include "common/alignment.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/workspace.h"
#include "fla/validate.h"
#include "loss/policy_tokens.cuh"

namespace fla {
namespace {

using namespace detail;

constexpr int kWidth = kPolicyWidth;
constexpr int kMostThreads = 512;  // two blocks an SM: while one waits for its sums, the other loads
constexpr int kFinishThreads = 256;

struct SequenceSlots {
  BlockSlots<2> ratio, slopes;
  BlockSlots<4> sums;
  BlockSlots<1> divisor;
};

FLA_DEVICE float sequence_ratio(const PolicyArgs& a, int64_t b, SequenceSlots& slots) {
  float sums[2] = {};
  for_tokens(a, b, 0.0f, [&](int64_t, const PolicyTokens& t) {
    FLA_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      if (!t.kept[i]) continue;
      sums[0] += 1.0f;
      sums[1] += t.log_ratio[i];
    }
  });
  block_sum(sums, slots.ratio);
  return sums[0] > 0.0f ? any_exp(sums[1] / sums[0]) : 1.0f;
}

FLA_DEVICE PolicyTerm term_of(const PolicyArgs& a, const PolicyTokens& t, int i, float ratio) {
  return policy_term(a.policy, a.ratio_of_sequence ? ratio : any_exp(t.log_ratio[i]), t.advantage[i], t.logp[i]);
}

FLA_DEVICE KlTerm kl_of(const PolicyArgs& a, const PolicyTokens& t, int i) {
  if (!a.has_kl) return {};
  return a.kl_by_ratio ? kl_term_by_ratio(t.apart[i], any_exp(t.log_ratio[i])) : kl_term(t.apart[i]);
}

// s_b of the sums of a sequence with this many kept tokens.
FLA_DEVICE float sequence_factor(const PolicyArgs& a, float length) {
  if (a.normalization == PolicyNormalization::grpo) return 1.0f / fmaxf(length, 1.0f);
  return a.normalization == PolicyNormalization::luspo ? length : 1.0f;
}

// N. `kept`: tokens of all sequences.
FLA_DEVICE float divisor_of(const PolicyArgs& a, float kept) {
  if (a.normalization == PolicyNormalization::bnpo) return kept;
  if (a.normalization == PolicyNormalization::dapo) return math::max_with_nan(load_float(a.normalizer), 1.0f);
  return a.constant_divisor;
}

FLA_KERNEL void FLA_BOUNDS(kMostThreads, 2) sequence_kernel(FLA_PARAMETERS PolicyArgs a) {
  auto& slots = *shared_memory<SequenceSlots>();
  const int64_t b = blockIdx.x;
  const float advantage = sequence_advantage(a, b);
  const float ratio = a.ratio_of_sequence ? sequence_ratio(a, b, slots) : 0.0f;
  float sums[4] = {};  // tokens, loss, kl, tokens cut
  for_tokens(a, b, advantage, [&](int64_t, const PolicyTokens& t) {
    FLA_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      if (!t.kept[i]) continue;
      const PolicyTerm policy = term_of(a, t, i, ratio);
      const KlTerm kl = kl_of(a, t, i);
      float loss = t.mismatch[i] * policy.value;
      if (a.beta != 0.0f) loss += a.beta * kl.value;
      sums[0] += 1.0f;
      sums[1] += loss;
      sums[2] += kl.value;
      sums[3] += policy.is_cut ? 1.0f : 0.0f;
    }
  });
  block_sum(sums, slots.sums);
  if (threadIdx.x != 0) return;
  if (a.lengths) a.lengths.write(b, 0, sums[0]);
  store_floats(a.partials + 4 * b, sums);
}

FLA_KERNEL void FLA_BOUNDS(kFinishThreads, 1) finish_kernel(FLA_PARAMETERS PolicyArgs a) {
  wait_for_predecessor();
  float sums[4] = {};
  for (int64_t b = threadIdx.x; b < a.sequences; b += kFinishThreads) {
    float partial[4];
    load_floats(a.partials + 4 * b, partial);
    partial[1] *= sequence_factor(a, partial[0]);
    FLA_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] += partial[i];
  }
  block_sum(sums, *shared_memory<BlockSlots<4>>());
  if (threadIdx.x != 0) return;
  const float divisor = divisor_of(a, sums[0]), empty = a.empty_is_nan ? NAN : 0.0f;
  store_float(a.loss, divisor == 0.0f ? empty : sums[1] / divisor);
  if (a.mean_kl) store_float(a.mean_kl, sums[0] == 0.0f ? 0.0f : sums[2] / sums[0]);
  if (a.clip_fraction) store_float(a.clip_fraction, sums[0] == 0.0f ? 0.0f : sums[3] / sums[0]);
}

// What multiplies the gradients of a sequence: dloss s_b / N.
FLA_DEVICE float sequence_weight(const PolicyArgs& a, float length, SequenceSlots& slots) {
  float kept = 0.0f;
  if (a.normalization == PolicyNormalization::bnpo) {
    for (int64_t i = threadIdx.x; i < a.sequences; i += blockDim.x) kept += a.lengths.read(i);
    kept = block_sum(kept, slots.divisor);
  }
  const float divisor = divisor_of(a, kept);
  return divisor == 0.0f ? 0.0f : load_float(a.dloss) * (sequence_factor(a, length) / divisor);
}

FLA_KERNEL void FLA_BOUNDS(kMostThreads, 2) gradient_kernel(FLA_PARAMETERS PolicyArgs a) {
  auto& slots = *shared_memory<SequenceSlots>();
  const int64_t b = blockIdx.x;
  const float advantage = sequence_advantage(a, b), length = a.lengths.read(b);
  const float weight = sequence_weight(a, length, slots);
  const float ratio = a.ratio_of_sequence ? sequence_ratio(a, b, slots) : 0.0f;
  float slopes[2] = {};  // by the log of the ratio, by the advantage
  if (a.ratio_of_sequence || a.by_advantage) {
    for_tokens(a, b, advantage, [&](int64_t, const PolicyTokens& t) {
      FLA_UNROLL
      for (int i = 0; i < kWidth; ++i) {
        if (!t.kept[i]) continue;
        const PolicyTerm policy = term_of(a, t, i, ratio);
        slopes[0] += t.mismatch[i] * policy.by_log_ratio;
        slopes[1] += t.mismatch[i] * policy.by_advantage;
      }
    });
    block_sum(slopes, slots.slopes);
    slopes[0] /= length;
    if (a.by_advantage && threadIdx.x == 0) store_float(a.by_advantage + b, weight * slopes[1]);
  }
  for_tokens(a, b, advantage, [&](int64_t l, const PolicyTokens& t) {
    float dlogp[kWidth] = {}, dref[kWidth] = {}, dold[kWidth] = {};
    FLA_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      if (!t.kept[i]) continue;
      const PolicyTerm policy = term_of(a, t, i, ratio);
      const KlTerm kl = kl_of(a, t, i);
      const float by_ratio = a.ratio_of_sequence ? slopes[0] : t.mismatch[i] * policy.by_log_ratio;
      const float by_logp = by_ratio + t.mismatch[i] * policy.by_logp;
      dlogp[i] = weight * (by_logp + a.beta * kl.by_logp);
      dref[i] = weight * (a.beta * kl.by_ref_logp);
      dold[i] = weight * (a.beta * kl.by_old_logp - by_ratio);
    }
    write_floats(a, a.dlogps, b, l, dlogp);
    write_floats(a, a.dref_logps, b, l, dref);
    write_floats(a, a.dold_logps, b, l, dold);
  });
}

// One warp a sequence.
FLA_KERNEL void FLA_BOUNDS(kFinishThreads, 1) reward_gradient_kernel(FLA_PARAMETERS PolicyArgs a) {
  wait_for_predecessor();
  const int64_t b = static_cast<int64_t>(blockIdx.x) * (kFinishThreads / kWarp) + threadIdx.x / kWarp;
  if (b >= a.sequences) return;
  const RewardGroup g = reward_group(a, b);
  const auto n = static_cast<float>(a.group_size);
  const float mean = group_sum(a, g.first, [&](int64_t i) { return load_float(a.by_advantage + i); }) / n;
  const float along =
      group_sum(a, g.first, [&](int64_t i) { return load_float(a.by_advantage + i) * g.advantage(a, i); });
  float gradient = 0.0f;
  if (g.deviation != 0.0f)
    gradient = (load_float(a.by_advantage + b) - mean) / (g.deviation + kDeviationFloor) -
               g.advantage(a, b) * (along / ((n - 1.0f) * g.deviation));
  if (threadIdx.x % kWarp == 0) a.drewards.write(b, 0, gradient);
}

Status check_call(const PolicyLossCall& a) {
  const auto required = [](const char* text) { return error(StatusCode::null_pointer, text); };
  const auto refused = [](const char* text) { return error(StatusCode::invalid_argument, text); };
  if (!a.rewards && !a.advantages && !a.token_advantages) return required("rewards: required without advantages");
  if (a.advantages && a.rewards) return refused("advantages: given beside rewards");
  if (a.token_advantages && (a.rewards || a.advantages))
    return refused("token_advantages: given beside rewards or advantages");
  if (a.beta != 0 && !a.ref_logps) return required("ref_logps: required when beta is not 0");
  if (a.normalization == PolicyNormalization::dapo && !a.normalizer) return required("normalizer: required by dapo");
  if (a.normalization != PolicyNormalization::dapo && a.normalizer) return refused("normalizer: taken by dapo only");
  if (a.kind == PolicyObjective::clip && a.delta < 1.0f + a.epsilon_high)
    return refused("delta: below 1 + epsilon_high");
  const int64_t B = a.logps.size[0], G = a.group_size != 0 ? a.group_size : B;
  if (!a.rewards || B == 0) return {};
  if (G < 2) return refused("group_size: rewards of one sequence have no standard deviation");
  return B % G == 0 ? Status{} : refused("group_size: does not divide B");
}

PolicyArgs policy_args(const PolicyLossCall& a) {
  PolicyArgs args;
  args.sequences = a.logps.size[0];
  args.tokens = a.logps.size[1];
  args.group_size = a.group_size != 0 ? a.group_size : args.sequences;
  args.logps = token_floats(a.logps);
  args.ref_logps = token_floats(a.ref_logps);
  args.old_logps = token_floats(a.old_logps);
  args.token_advantages = token_floats(a.token_advantages);
  args.mismatch_ratio = token_floats(a.mismatch_ratio);
  args.rewards = token_floats(a.rewards);
  args.advantages = token_floats(a.advantages);
  args.mask = mask_operand(a.pad_mask);
  const bool clips = a.kind == PolicyObjective::clip;
  args.policy = {a.kind, 1.0f - a.epsilon_low, clips ? 1.0f + a.epsilon_high : a.epsilon_high, a.delta, a.tau_positive,
                 a.tau_negative};
  args.normalization = a.normalization;
  args.normalizer = static_cast<const float*>(a.normalizer.data);
  const bool of_most = a.normalization == PolicyNormalization::dr_grpo && a.max_tokens != 0;
  const double tokens = static_cast<double>(of_most ? a.max_tokens : args.tokens);
  const double per_sequence = a.normalization == PolicyNormalization::grpo ? 1.0 : tokens;
  args.constant_divisor = static_cast<float>(static_cast<double>(args.sequences) * per_sequence);
  args.beta = a.beta;
  args.aligned = all_rows_allow(kWidth, a.logps, a.ref_logps, a.old_logps, a.token_advantages, a.mismatch_ratio, a.pad_mask);
  args.ratio_of_sequence = a.level == PolicyLevel::sequence;
  args.kl_by_ratio = a.kl_by_ratio;
  args.has_kl = a.beta != 0;
  args.empty_is_nan = a.empty_mean == EmptyMean::nan;
  return args;
}

Launch by_sequence(const PolicyArgs& a, Stream stream) {
  const int64_t warps = divide_up(divide_up(a.tokens, kWidth), kWarp);
  const int64_t most = kMostThreads / kWarp;
  return {.grid = a.sequences,
          .block = kWarp * static_cast<int>(warps < 1 ? 1 : warps < most ? warps : most),
          .shared_bytes = sizeof(SequenceSlots),
          .stream = stream};
}

}  // namespace

Status check(const PolicyLossForward& a) {
  if (a.mean_kl && !a.ref_logps) return error(StatusCode::null_pointer, "ref_logps: required for mean_kl");
  return check_call(a);
}
Status check(const PolicyLossBackward& a) { return check_call(a); }

size_t workspace_bytes(const PolicyLossForward& a) {
  return align_workspace(static_cast<size_t>(a.logps.size[0]) * 4 * sizeof(float));
}
size_t workspace_bytes(const PolicyLossBackward& a) {
  return a.drewards ? align_workspace(static_cast<size_t>(a.logps.size[0]) * sizeof(float)) : 0;
}

Status run(const PolicyLossForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  PolicyArgs args = policy_args(a);
  args.has_kl = a.beta != 0 || a.mean_kl;
  args.partials = static_cast<float*>(workspace.data);
  args.lengths = token_floats(a.lengths);
  args.loss = static_cast<float*>(a.loss.data);
  args.mean_kl = static_cast<float*>(a.mean_kl.data);
  args.clip_fraction = static_cast<float*>(a.clip_fraction.data);
  if (args.sequences > 0)
    if (Status s = launch<&sequence_kernel>(by_sequence(args, stream), args); !s.ok()) return s;
  return launch<&finish_kernel>(
      {.block = kFinishThreads, .shared_bytes = sizeof(BlockSlots<4>), .stream = stream, .dependent = true}, args);
}

Status run(const PolicyLossBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  PolicyArgs args = policy_args(a);
  if (args.sequences == 0) return {};
  args.aligned = args.aligned && all_rows_allow(kWidth, a.dlogps, a.dref_logps, a.dold_logps);
  args.lengths = token_floats(a.lengths);
  args.dloss = static_cast<const float*>(a.dloss.data);
  args.dlogps = token_floats(a.dlogps);
  args.dref_logps = token_floats(a.dref_logps);
  args.dold_logps = token_floats(a.dold_logps);
  args.drewards = token_floats(a.drewards);
  if (a.drewards) args.by_advantage = static_cast<float*>(workspace.data);
  if (Status s = launch<&gradient_kernel>(by_sequence(args, stream), args); !s.ok() || !a.drewards) return s;
  return launch<&reward_gradient_kernel>({.grid = divide_up(args.sequences, kFinishThreads / kWarp),
                                          .block = kFinishThreads,
                                          .stream = stream,
                                          .dependent = true},
                                         args);
}

}  // namespace fla
