// Losses on the log-probabilities of sampled tokens.
#pragma once

#include "fla/policy_loss.h"
#include "reference/loss.h"
#include "reference/policy_terms.h"

namespace fla::reference {

// The tokens of either struct of GRPO.
template <class S, class A>
class GrpoTokens {
 public:
  explicit GrpoTokens(const A& a)
      : logits_(a.logits),
        ref_logp_(a.ref_logp),
        ids_(a.input_ids),
        mask_(a.completion_mask, 2, 0),
        prompt_(a.input_ids.size[1] - (a.logits.size[1] - 1)) {}

  int64_t sequences() const { return logits_.size(0); }
  int64_t tokens() const { return logits_.size(1) - 1; }
  int64_t classes() const { return logits_.size(2); }
  bool is_kept(int64_t b, int64_t l) const { return !mask_ || value(mask_(b, l)) != 0; }
  int64_t id(int64_t b, int64_t l) const { return ids_(b, prompt_ + l); }
  bool is_valid(int64_t b, int64_t l) const { return id(b, l) >= 0 && id(b, l) < classes(); }

  S lse(int64_t b, int64_t l) const {
    std::vector<S> z(static_cast<size_t>(classes()));
    for (size_t v = 0; v < z.size(); ++v) z[v] = logits_(b, l, v);
    return log_sum_exp(z);
  }
  S logp(int64_t b, int64_t l, const S& lse) const { return logits_(b, l, id(b, l)) - lse; }
  // Of the policy to itself: 1, through which gradients flow. Of a logit of -inf too, which does not vary.
  S ratio(int64_t b, int64_t l, const S& lse) const {
    const S logit = logits_(b, l, id(b, l));
    const S moved = std::isinf(value(logit)) ? S(0.0) : logit - detach(logit);
    return exp_(moved - (lse - detach(lse)));
  }
  // D of k3.
  S apart(int64_t b, int64_t l, const S& logp) const { return ref_logp_(b, l) - logp; }

 private:
  View<S> logits_, ref_logp_;
  View<int64_t> ids_;
  NumberView<S> mask_;
  int64_t prompt_;
};

template <class S>
void evaluate(const GrpoLossForward& a) {
  const GrpoTokens<S, GrpoLossForward> tokens(a);
  const View<S> advantages(a.advantages), loss(a.loss), kl(a.kl), lse_out(a.lse);
  const View<int64_t> invalid(a.invalid_labels);
  const S beta = constant<S>(a.beta), nan(std::numeric_limits<double>::quiet_NaN());
  const auto give = [&](int64_t b, int64_t l, const S& token_loss, const S& token_kl, const S& lse) {
    loss(b, l) = token_loss;
    if (kl) kl(b, l) = detach(token_kl);
    if (lse_out) lse_out(b, l) = lse;
  };
  for (int64_t b = 0; b < tokens.sequences(); ++b) {
    for (int64_t l = 0; l < tokens.tokens(); ++l) {
      if (!tokens.is_kept(b, l)) {
        give(b, l, S(0.0), S(0.0), S(0.0));
        continue;
      }
      if (!tokens.is_valid(b, l)) {
        give(b, l, nan, nan, S(0.0));
        if (invalid) {
          invalid(0) += 1;
          invalid(1) = std::min(invalid(1), b * (tokens.tokens() + 1) + l);
        }
        continue;
      }
      const S lse = tokens.lse(b, l), logp = tokens.logp(b, l, lse);
      const S token_kl = a.ref_logp ? k3(tokens.apart(b, l, logp)) : S(0.0);
      S token_loss = -(advantages(b) * tokens.ratio(b, l, lse));
      if (a.beta != 0) token_loss = beta * token_kl + token_loss;
      give(b, l, token_loss, token_kl, lse);
    }
  }
}

template <class S>
void evaluate(const GrpoLossBackward& a) {
  const GrpoTokens<S, GrpoLossBackward> tokens(a);
  const View<S> logits(a.logits), advantages(a.advantages), lse(a.lse), dloss(a.dloss), dlogits(a.dlogits);
  const bool in_base_2 = size_of(a.logits.dtype) == 2;
  const S log2_e(std::numbers::log2e), ln_2(std::numbers::ln2);
  for (int64_t b = 0; b < tokens.sequences(); ++b) {
    for (int64_t l = 0; l <= tokens.tokens(); ++l) {
      const bool live = l < tokens.tokens() && tokens.is_kept(b, l) && tokens.is_valid(b, l);
      S dlogp(0.0);
      if (live) {
        S slope = -advantages(b);
        if (a.beta != 0)
          slope = slope - constant<S>(a.beta) * k3_slope(tokens.apart(b, l, tokens.logp(b, l, lse(b, l))));
        dlogp = dloss(b, l) * slope;
      }
      for (int64_t v = 0; v < tokens.classes(); ++v) {
        S inner(0.0);
        if (live) {
          const S x = logits(b, l, v);
          // For 16-bit gradients kernels form the exponent in base 2, where each term is rounded once more.
          inner = -exp_(in_base_2 ? (x * log2_e - lse(b, l) * log2_e) * ln_2 : x - lse(b, l));
          if (v == tokens.id(b, l)) inner = inner + S(1.0);
        }
        dlogits(b, l, v) = live ? dlogp * inner : S(0.0);
      }
    }
  }
}

// The tokens of either struct of a policy's loss on log-probabilities, and what they are made of.
template <class S>
class PolicyTokens {
 public:
  explicit PolicyTokens(const PolicyLossCall& a)
      : a_(a),
        logps_(a.logps),
        ref_logps_(a.ref_logps),
        old_logps_(a.old_logps),
        rewards_(a.rewards),
        advantages_(a.advantages),
        token_advantages_(a.token_advantages),
        mismatch_ratio_(a.mismatch_ratio),
        normalizer_(a.normalizer),
        mask_(a.pad_mask, 2, 0) {
    if (a.rewards)
      for (int64_t first = 0; first < sequences(); first += group_size()) add_group(first);
    if (a.level != PolicyLevel::sequence) return;
    for (int64_t b = 0; b < sequences(); ++b) {
      const double kept = length(b);
      const S mean = sum_kept(b, [&](int64_t l) { return log_ratio(b, l); }) / S(kept);
      sequence_ratios_.push_back(kept > 0 ? exp_from_one(mean) : S(1.0));
    }
  }

  int64_t sequences() const { return logps_.size(0); }
  int64_t tokens() const { return logps_.size(1); }
  int64_t group_size() const { return a_.group_size != 0 ? a_.group_size : sequences(); }
  bool is_kept(int64_t b, int64_t l) const { return !mask_ || value(mask_(b, l)) != 0; }
  double length(int64_t b) const {
    double kept = 0;
    for (int64_t l = 0; l < tokens(); ++l) kept += is_kept(b, l);
    return kept;
  }
  template <class F>
  S sum_kept(int64_t b, F&& f) const {
    return sum<S>(tokens(), [&](int64_t l) { return is_kept(b, l) ? f(l) : S(0.0); });
  }

  S logp(int64_t b, int64_t l) const { return logps_(b, l); }
  S apart(int64_t b, int64_t l) const { return ref_logps_(b, l) - logps_(b, l); }
  S log_ratio(int64_t b, int64_t l) const {
    return logps_(b, l) - (old_logps_ ? old_logps_(b, l) : detach(logps_(b, l)));
  }
  S token_ratio(int64_t b, int64_t l) const { return exp_from_one(log_ratio(b, l)); }
  S ratio(int64_t b, int64_t l) const {
    return sequence_ratios_.empty() ? token_ratio(b, l) : sequence_ratios_[static_cast<size_t>(b)];
  }
  S advantage(int64_t b, int64_t l) const {
    if (token_advantages_) return token_advantages_(b, l);
    return rewards_ ? group_advantages_[static_cast<size_t>(b)] : advantages_(b);
  }
  S deviation(int64_t b) const { return deviations_[static_cast<size_t>(b / group_size())]; }
  S mismatch(int64_t b, int64_t l) const { return mismatch_ratio_ ? mismatch_ratio_(b, l) : S(1.0); }

  // s_b and N.
  S factor(const S& length) const {
    if (a_.normalization == PolicyNormalization::grpo) return S(1.0) / max_(length, S(1.0));
    return a_.normalization == PolicyNormalization::luspo ? length : S(1.0);
  }
  S divisor(const S& kept) const {
    switch (a_.normalization) {
      case PolicyNormalization::bnpo: return kept;
      case PolicyNormalization::grpo: return constant<S>(sequences());
      case PolicyNormalization::dr_grpo: return constant<S>(sequences() * (a_.max_tokens != 0 ? a_.max_tokens : tokens()));
      case PolicyNormalization::dapo: return max_(normalizer_(0), S(1.0));
      case PolicyNormalization::luspo: return constant<S>(sequences() * tokens());
    }
    return S(0.0);
  }

 private:
  // Rewards less the group's first: all equal, they are zeros, and so are all that is made of them.
  void add_group(int64_t first) {
    const int64_t n = group_size();
    const auto shifted = [&](int64_t i) { return rewards_(first + i) - rewards_(first); };
    const S mean = sum<S>(n, shifted, kWarpLanes) / constant<S>(n);
    const auto centred = [&](int64_t i) { return shifted(i) - mean; };
    const S squares = sum<S>(n, [&](int64_t i) { return centred(i) * centred(i); }, kWarpLanes);
    const S deviation = sqrt_(squares / constant<S>(n - 1));
    deviations_.push_back(deviation);
    for (int64_t i = 0; i < n; ++i)
      group_advantages_.push_back(value(deviation) == 0 ? detach(centred(i)) : centred(i) / (deviation + constant<S>(1e-8f)));
  }

  const PolicyLossCall& a_;
  View<S> logps_, ref_logps_, old_logps_, rewards_, advantages_, token_advantages_, mismatch_ratio_, normalizer_;
  NumberView<S> mask_;
  std::vector<S> group_advantages_, deviations_, sequence_ratios_;
};

template <class S>
PolicyTerm<S> policy_term(const PolicyLossCall& a, const PolicyTokens<S>& tokens, int64_t b, int64_t l) {
  return {a, tokens.ratio(b, l), tokens.advantage(b, l), tokens.logp(b, l)};
}

template <class S>
void evaluate(const PolicyLossForward& a) {
  const PolicyTokens<S> tokens(a);
  const View<S> loss(a.loss), mean_kl(a.mean_kl), clip_fraction(a.clip_fraction), lengths(a.lengths);
  const S beta = constant<S>(a.beta);
  const auto kl = [&](int64_t b, int64_t l) {
    const S plain = k3(tokens.apart(b, l));
    return a.kl_by_ratio ? tokens.token_ratio(b, l) * plain : plain;
  };
  const auto over_sequences = [&](auto&& f) { return sum<S>(tokens.sequences(), f); };
  const auto over_tokens = [&](auto&& f) {
    return over_sequences([&](int64_t b) { return tokens.sum_kept(b, [&](int64_t l) { return f(b, l); }); });
  };
  const S kept = over_sequences([&](int64_t b) { return S(tokens.length(b)); });
  const S total = over_sequences([&](int64_t b) {
    return tokens.factor(S(tokens.length(b))) * tokens.sum_kept(b, [&](int64_t l) {
      const S policy = tokens.mismatch(b, l) * policy_term(a, tokens, b, l).value();
      return a.beta != 0 ? policy + beta * kl(b, l) : policy;
    });
  });
  const S divisor = tokens.divisor(kept), empty(a.empty_mean == EmptyMean::nan ? NAN : 0.0);
  loss(0) = value(divisor) == 0 ? empty : total / divisor;
  if (lengths)
    for (int64_t b = 0; b < tokens.sequences(); ++b) lengths(b) = S(tokens.length(b));
  const auto mean = [&](const S& sum) { return value(kept) == 0 ? S(0.0) : detach(sum / kept); };
  if (mean_kl) mean_kl(0) = mean(over_tokens(kl));
  if (clip_fraction)
    clip_fraction(0) = mean(over_tokens([&](int64_t b, int64_t l) { return policy_term(a, tokens, b, l).is_cut(); }));
}

template <class S>
void evaluate(const PolicyLossBackward& a) {
  const PolicyTokens<S> tokens(a);
  const View<S> lengths(a.lengths), dloss(a.dloss), dlogps(a.dlogps), dref(a.dref_logps), dold(a.dold_logps),
      drewards(a.drewards);
  const S beta = constant<S>(a.beta);
  const S divisor = tokens.divisor(sum<S>(tokens.sequences(), [&](int64_t b) { return lengths(b); }));
  std::vector<S> by_advantage;
  for (int64_t b = 0; b < tokens.sequences(); ++b) {
    const S weight = value(divisor) == 0 ? S(0.0) : dloss(0) * (tokens.factor(lengths(b)) / divisor);
    const auto summed = [&](auto&& derivative) {
      return tokens.sum_kept(b, [&](int64_t l) { return tokens.mismatch(b, l) * derivative(policy_term(a, tokens, b, l)); });
    };
    S of_sequence(0.0);
    if (a.level == PolicyLevel::sequence)
      of_sequence = summed([](const PolicyTerm<S>& p) { return p.by_log_ratio(); }) / lengths(b);
    if (drewards) by_advantage.push_back(weight * summed([](const PolicyTerm<S>& p) { return p.by_advantage(); }));
    for (int64_t l = 0; l < tokens.tokens(); ++l) {
      S by_logp(0.0), by_ref(0.0), by_old(0.0);
      if (tokens.is_kept(b, l)) {
        const PolicyTerm<S> policy = policy_term(a, tokens, b, l);
        const S mismatch = tokens.mismatch(b, l);
        const S by_ratio = a.level == PolicyLevel::sequence ? of_sequence : mismatch * policy.by_log_ratio();
        by_logp = by_ratio + mismatch * policy.by_logp();
        by_old = -by_ratio;
        if (a.beta != 0) {
          const S apart = tokens.apart(b, l), ratio = a.kl_by_ratio ? tokens.token_ratio(b, l) : S(1.0);
          by_ref = beta * (ratio * k3_slope(apart));
          by_logp = by_logp + (a.kl_by_ratio ? beta * -(ratio * apart) : -by_ref);
          if (a.kl_by_ratio) by_old = by_old - beta * (ratio * k3(apart));
        }
        by_logp = weight * by_logp, by_ref = weight * by_ref, by_old = weight * by_old;
      }
      dlogps(b, l) = by_logp;
      if (dref) dref(b, l) = by_ref;
      if (dold) dold(b, l) = by_old;
    }
  }
  if (!drewards) return;
  const int64_t n = tokens.group_size();
  for (int64_t b = 0; b < tokens.sequences(); ++b) {
    const int64_t first = b / n * n;
    const auto k = [&](int64_t i) { return by_advantage[static_cast<size_t>(i)]; };
    const S mean = sum<S>(n, [&](int64_t i) { return k(first + i); }, kWarpLanes) / constant<S>(n);
    const S along = sum<S>(n, [&](int64_t i) { return k(first + i) * tokens.advantage(first + i, 0); }, kWarpLanes);
    const S deviation = tokens.deviation(b);
    drewards(b) = value(deviation) == 0 ? S(0.0)
                                        : (k(b) - mean) / (deviation + constant<S>(1e-8f)) -
                                              tokens.advantage(b, 0) * (along / (constant<S>(n - 1) * deviation));
  }
}

}  // namespace fla::reference
