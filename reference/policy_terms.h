// What losses on log-probabilities are made of.
#pragma once

#include <cmath>

#include "fla/policy_loss.h"
#include "reference/view.h"

namespace fla::reference {

// e^0 is exactly 1, by contract: a policy on its own samples is at ratio 1, one like its reference at kl 0.
template <class S>
S exp_from_one(const S& x) {
  return exp_(x);
}
inline Bound exp_from_one(const Bound& x) { return x.v == 0 && x.e == 0 && !x.ambiguous ? Bound(1) : exp_(x); }

// The estimator of KL(policy || reference) from D = ref_logp - logp, and its derivative by D.
template <class S>
S k3(const S& apart) {
  return exp_from_one(apart) - min_(apart, S(1e38)) - S(1.0);  // infinite where D is
}
template <class S>
S k3_slope(const S& apart) {
  return exp_from_one(apart) - S(1.0);
}

// p of a token, as the definition has it; whether the ratio was cut, as 0 or 1.
template <class S>
class PolicyTerm {
 public:
  PolicyTerm(const PolicyLossCall& a, const S& ratio, const S& advantage, const S& logp)
      : a_(a), ratio_(ratio), advantage_(advantage), logp_(logp) {}

  S value() const {
    if (a_.kind == PolicyObjective::clip) return -min_(advantage_ * most(), advantage_ * max_(min_(ratio_, high()), low()));
    if (a_.kind == PolicyObjective::cispo) return -(detach(most()) * advantage_) * logp_;
    return -(S(4.0) / tau() * sigmoid().plus) * advantage_;
  }
  S is_cut() const {
    if (a_.kind == PolicyObjective::clip)
      return select_(less_(delta(), ratio_), S(1.0), unless_clipped(S(0.0), S(1.0), S(1.0)));
    return a_.kind == PolicyObjective::cispo ? select_(less_(high(), ratio_), S(1.0), S(0.0)) : S(0.0);
  }

  // Derivatives by the log of the ratio, by logp beside it, and by the advantage.
  S by_log_ratio() const {
    if (a_.kind == PolicyObjective::clip)
      return select_(less_(delta(), ratio_), S(0.0), unless_clipped(-(advantage_ * ratio_), S(0.0), S(0.0)));
    if (a_.kind == PolicyObjective::cispo) return S(0.0);
    return S(-4.0) * advantage_ * sigmoid().plus * (sigmoid().minus * min_(ratio_, S(0x1p127)));
  }
  S by_logp() const { return a_.kind == PolicyObjective::cispo ? -(most() * advantage_) : S(0.0); }
  S by_advantage() const {
    if (a_.kind == PolicyObjective::clip) return unless_clipped(-most(), -high(), -low());
    if (a_.kind == PolicyObjective::cispo) return -(most() * logp_);
    return -(S(4.0) / tau() * sigmoid().plus);
  }

 private:
  S low() const { return S(1.0) - constant<S>(a_.epsilon_low); }
  S high() const {
    return a_.kind == PolicyObjective::clip ? S(1.0) + constant<S>(a_.epsilon_high) : constant<S>(a_.epsilon_high);
  }
  S delta() const { return constant<S>(a_.delta); }
  S most() const {
    const S bound = a_.kind == PolicyObjective::clip ? delta() : high();
    return std::isinf(reference::value(bound)) ? ratio_ : min_(ratio_, bound);
  }
  S unless_clipped(const S& inside, const S& above, const S& below) const {
    const S if_positive = select_(less_(high(), ratio_), above, inside);
    const S if_negative = select_(less_(ratio_, low()), below, inside);
    return select_(less_(S(0.0), advantage_), if_positive, select_(less_(advantage_, S(0.0)), if_negative, inside));
  }
  S tau() const {
    return select_(less_(S(0.0), advantage_), constant<S>(a_.tau_positive), constant<S>(a_.tau_negative));
  }
  Sigmoid<S> sigmoid() const { return sigmoid_(tau() * (ratio_ - S(1.0))); }

  const PolicyLossCall& a_;
  const S ratio_, advantage_, logp_;
};

}  // namespace fla::reference
