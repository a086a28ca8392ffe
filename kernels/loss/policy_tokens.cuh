// The tokens and the rewards of a policy's loss as its kernels read them.
#pragma once

#include "common/mask.cuh"
#include "common/row_reduce.cuh"
#include "loss/policy_terms.cuh"

namespace fla::detail {

inline constexpr int kPolicyWidth = 4;          // tokens a thread takes at once
inline constexpr float kDeviationFloor = 1e-8f;

struct PolicyArgs {
  int64_t sequences = 0, tokens = 0, group_size = 0;
  TokenFloats logps, ref_logps, old_logps, token_advantages, mismatch_ratio, rewards, advantages, lengths;
  MaskOperand mask;
  PolicyOptions policy;
  PolicyNormalization normalization = PolicyNormalization::bnpo;
  const float* normalizer = nullptr;
  float constant_divisor = 0, beta = 0;
  bool aligned = false;  // rows of all tensors of tokens start at vectors
  bool ratio_of_sequence = false, kl_by_ratio = false, has_kl = false, empty_is_nan = false;
  // Forward
  float *partials = nullptr, *loss = nullptr, *mean_kl = nullptr, *clip_fraction = nullptr;
  // Backward
  const float* dloss = nullptr;
  float* by_advantage = nullptr;  // [B]
  TokenFloats dlogps, dref_logps, dold_logps, drewards;
};

// Neighbouring tokens of a sequence; those that are not kept hold anything.
struct PolicyTokens {
  float logp[kPolicyWidth], log_ratio[kPolicyWidth], apart[kPolicyWidth], advantage[kPolicyWidth], mismatch[kPolicyWidth];
  bool kept[kPolicyWidth];
};

FLA_DEVICE bool whole_vector(const PolicyArgs& a, int64_t l) { return a.aligned && l + kPolicyWidth <= a.tokens; }

FLA_DEVICE void read_floats(const PolicyArgs& a, const TokenFloats& t, int64_t b, int64_t l, float (&out)[kPolicyWidth]) {
  if (whole_vector(a, l)) return load_floats(t.data, b * t.stride_b + l, out);
  FLA_UNROLL
  for (int i = 0; i < kPolicyWidth; ++i) out[i] = l + i < a.tokens ? t.read(b, l + i) : 0.0f;
}

FLA_DEVICE void read_floats(const PolicyArgs& a, const TokenFloats& t, int64_t b, int64_t l, float absent,
                            float (&out)[kPolicyWidth]) {
  if (t) return read_floats(a, t, b, l, out);
  FLA_UNROLL
  for (int i = 0; i < kPolicyWidth; ++i) out[i] = absent;
}

FLA_DEVICE void write_floats(const PolicyArgs& a, const TokenFloats& t, int64_t b, int64_t l,
                             const float (&values)[kPolicyWidth]) {
  if (!t) return;
  if (whole_vector(a, l)) return store_floats(t.data, b * t.stride_b + l, values);
  FLA_UNROLL
  for (int i = 0; i < kPolicyWidth; ++i)
    if (l + i < a.tokens) t.write(b, l + i, values[i]);
}

FLA_DEVICE void read_mask(const PolicyArgs& a, int64_t b, int64_t l, bool (&kept)[kPolicyWidth]) {
  if (a.mask && a.mask.dtype == DType::u8 && whole_vector(a, l)) {
    const auto four = load<uint8_t, kPolicyWidth>(static_cast<const uint8_t*>(a.mask.data) + b * a.mask.stride_b + l);
    FLA_UNROLL
    for (int i = 0; i < kPolicyWidth; ++i) kept[i] = (four.words[0] >> (8 * i) & 0xff) != 0;
    return;
  }
  FLA_UNROLL
  for (int i = 0; i < kPolicyWidth; ++i) kept[i] = l + i < a.tokens && !(a.mask && a.mask.read(b, l + i) == 0.0f);
}

FLA_DEVICE PolicyTokens read_tokens(const PolicyArgs& a, int64_t b, int64_t l, float advantage) {
  PolicyTokens t;
  read_floats(a, a.logps, b, l, t.logp);
  read_floats(a, a.old_logps, b, l, 0.0f, t.log_ratio);
  read_floats(a, a.ref_logps, b, l, 0.0f, t.apart);
  read_floats(a, a.token_advantages, b, l, advantage, t.advantage);
  read_floats(a, a.mismatch_ratio, b, l, 1.0f, t.mismatch);
  read_mask(a, b, l, t.kept);
  FLA_UNROLL
  for (int i = 0; i < kPolicyWidth; ++i) {
    t.log_ratio[i] = a.old_logps ? t.logp[i] - t.log_ratio[i] : 0.0f;
    t.apart[i] -= t.logp[i];
  }
  return t;
}

// f(first token, tokens) for all of a sequence, over the threads of the block.
template <class F>
FLA_DEVICE void for_tokens(const PolicyArgs& a, int64_t b, float advantage, F&& f) {
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPolicyWidth;
  for (int64_t l = static_cast<int64_t>(threadIdx.x) * kPolicyWidth; l < a.tokens; l += step)
    f(l, read_tokens(a, b, l, advantage));
}

// Rewards less the group's first, whose mean and deviation are exact zeros where all are equal. By every warp for itself.
struct RewardGroup {
  int64_t first = 0;
  float origin = 0, mean = 0, deviation = 0;

  FLA_DEVICE float advantage(const PolicyArgs& a, int64_t b) const {
    return (a.rewards.read(b) - origin - mean) / (deviation + kDeviationFloor);
  }
};

template <class F>
FLA_DEVICE float group_sum(const PolicyArgs& a, int64_t first, F&& f) {
  float sum = 0.0f;
  for (int64_t i = static_cast<int>(threadIdx.x) % kWarp; i < a.group_size; i += kWarp) sum += f(first + i);
  return warp_sum(sum);
}

FLA_DEVICE RewardGroup reward_group(const PolicyArgs& a, int64_t b) {
  RewardGroup g;
  g.first = b / a.group_size * a.group_size;
  g.origin = a.rewards.read(g.first);
  const auto n = static_cast<float>(a.group_size);
  g.mean = group_sum(a, g.first, [&](int64_t i) { return a.rewards.read(i) - g.origin; }) / n;
  const float squares = group_sum(a, g.first, [&](int64_t i) {
    const float apart = a.rewards.read(i) - g.origin - g.mean;
    return apart * apart;
  });
  g.deviation = sqrtf(squares / (n - 1.0f));
  return g;
}

FLA_DEVICE float sequence_advantage(const PolicyArgs& a, int64_t b) {
  if (a.rewards) return reward_group(a, b).advantage(a, b);
  return a.advantages ? a.advantages.read(b) : 0.0f;
}

}  // namespace fla::detail
