// Losses on the log-probabilities of sampled tokens.
#pragma once

#include "fla/policy_loss.h"
#include "reference/loss.h"

namespace fla::reference {

// The estimator of KL(policy || reference) from D = ref_logp - logp, and its derivative by D.
template <class S>
S k3(const S& apart) {
  return exp_(apart) - apart - S(1.0);
}
template <class S>
S k3_slope(const S& apart) {
  return exp_(apart) - S(1.0);
}

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
      const S ratio = exp_(logp - detach(logp));
      S token_loss = -(advantages(b) * ratio);
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

}  // namespace fla::reference
