// What losses on log-probabilities share: how they read tokens, and the terms that they are made of.
#pragma once

#include "common/math.cuh"
#include "common/vector.cuh"
#include "fla/policy_loss.h"

namespace fla::detail {

// [B, L], or [B], of a float dtype.
struct TokenFloats {
  AnyFloat data;
  int64_t stride_b = 0, stride_l = 0;

  FLA_HOST_DEVICE explicit operator bool() const { return static_cast<bool>(data); }
  FLA_DEVICE float read(int64_t b, int64_t l = 0) const { return load_float(data, b * stride_b + l * stride_l); }
  FLA_DEVICE void write(int64_t b, int64_t l, float x) const { store_float(data, b * stride_b + l * stride_l, x); }
};

inline TokenFloats token_floats(const Tensor& t) {
  if (!t) return {};
  return {any_float(t), t.stride[0], t.rank > 1 ? t.stride[1] : 0};
}

// e^x for any x, e^0 exactly 1. Beyond 88, where math::exp ends, x - 1 is exact; e^89 is infinite already.
FLA_DEVICE float any_exp(float x) {
  constexpr float kE = 2.718281828459045f;
  return x > 88.0f ? kE * math::exp(fminf(x, 89.0f) - 1.0f) : math::exp(x);
}

// The estimator e^D - D - 1 of KL(policy || reference), D = ref_logp - logp, and its derivative by D.
// Where D is infinite (a token that the policy excludes) so is the estimator.
FLA_DEVICE float k3(float apart) { return any_exp(apart) - fminf(apart, 1e38f) - 1.0f; }
FLA_DEVICE float k3_slope(float apart) { return any_exp(apart) - 1.0f; }

struct PolicyOptions {
  PolicyObjective kind = PolicyObjective::clip;
  float low = 0, high = 0, most = 0;  // bounds of the ratio; of cispo high alone
  float tau_positive = 1, tau_negative = 1;
};

// The policy's term p of a token and its derivatives by the log of the ratio, by logp beside the ratio, and by the
// advantage.
struct PolicyTerm {
  float value = 0, by_log_ratio = 0, by_logp = 0, by_advantage = 0;
  bool is_cut = false;
};

FLA_DEVICE PolicyTerm policy_term(const PolicyOptions& o, float ratio, float advantage, float logp) {
  PolicyTerm term;
  if (o.kind == PolicyObjective::clip) {
    const float held = math::max_with_nan(math::min_with_nan(ratio, o.high), o.low);
    const float most = math::min_with_nan(ratio, o.most);
    // Which of both is the smaller, said without their rounded products: at a bound the ratio still counts as inside.
    const bool clipped = (advantage > 0.0f && ratio > o.high) || (advantage < 0.0f && ratio < o.low);
    term.value = -math::min_with_nan(advantage * most, advantage * held);
    term.is_cut = clipped || ratio > o.most;
    term.by_log_ratio = term.is_cut ? 0.0f : -advantage * ratio;
    term.by_advantage = clipped ? -held : -most;
  } else if (o.kind == PolicyObjective::cispo) {
    const float most = math::min_with_nan(ratio, o.high);
    term.by_logp = -most * advantage;
    term.by_advantage = -most * logp;
    term.value = term.by_logp * logp;
    term.is_cut = ratio > o.high;
  } else {
    const float tau = advantage > 0.0f ? o.tau_positive : o.tau_negative;
    const math::Sigmoid s = math::sigmoid(tau * (ratio - 1.0f));
    term.by_advantage = -4.0f / tau * s.plus;
    term.value = term.by_advantage * advantage;
    // 1 - sigmoid is zero long before the ratio is infinite, and so is their product.
    term.by_log_ratio = -4.0f * advantage * s.plus * (s.minus * fminf(ratio, 0x1p127f));
  }
  return term;
}

// beta kl of a token and its derivatives by logp, ref_logp and old_logp.
struct KlTerm {
  float value = 0, by_logp = 0, by_ref_logp = 0, by_old_logp = 0;
};

FLA_DEVICE KlTerm kl_term(float apart) { return {k3(apart), -k3_slope(apart), k3_slope(apart), 0.0f}; }

// The same times the token's ratio, through which the gradient flows too: k3 - (e^D - 1) is -D.
FLA_DEVICE KlTerm kl_term_by_ratio(float apart, float ratio) {
  const float kl = ratio * k3(apart);
  return {kl, -ratio * apart, ratio * k3_slope(apart), -kl};
}

}  // namespace fla::detail
