// Log-sum-exp and log-probabilities of given tokens.
#pragma once

#include "fla/token_logp.h"
#include "reference/loss.h"

namespace fla::reference {

// Cross entropy's terms with the chain of these operators.
template <class S>
CrossEntropyTerms<S> terms_of(const LogitChainOptions& a, const Tensor& logits, const Tensor& labels, int64_t ignore_index) {
  CrossEntropyOptions o;
  o.ignore_index = ignore_index;
  o.logit_scale = a.logit_scale;
  o.softcap = a.softcap;
  return CrossEntropyTerms<S>(o, logits, labels);
}

template <class S>
std::vector<S> chained_row(const CrossEntropyTerms<S>& terms, const View<S>& logits, int64_t t) {
  std::vector<S> z(static_cast<size_t>(logits.size(1)));
  for (size_t v = 0; v < z.size(); ++v) z[v] = terms.chain(logits(t, v)).z;
  return z;
}

// log sum - mean of z - max, both relative to the largest z: -inf adds nothing.
template <class S>
S entropy_of(const std::vector<S>& z) {
  S top(-std::numeric_limits<double>::infinity());
  for (const S& v : z) top = max_(top, v);
  const S pivot(value(top));
  const auto n = static_cast<int64_t>(z.size());
  const auto below = [&](int64_t v) { return z[static_cast<size_t>(v)] - pivot; };
  const S total = sum<S>(
      n, [&](int64_t v) { return exp_(below(v)); }, kVocabularyLanes);
  const S weighted = sum<S>(
      n,
      [&](int64_t v) {
        const S b = below(v);
        return value(b) == -std::numeric_limits<double>::infinity() ? S(0.0) : exp_(b) * b;
      },
      kVocabularyLanes);
  return log_(total) - weighted / total;
}

template <class S>
void evaluate(const LogSumExpForward& a) {
  const CrossEntropyTerms<S> terms = terms_of<S>(a, a.logits, {}, 0);
  const View<S> logits(a.logits), lse(a.lse);
  for (int64_t t = 0; t < logits.size(0); ++t) lse(t) = log_sum_exp(chained_row(terms, logits, t));
}

template <class S>
void evaluate(const LogSumExpBackward& a) {
  const CrossEntropyTerms<S> terms = terms_of<S>(a, a.logits, {}, 0);
  const View<S> logits(a.logits), lse(a.lse), dlse(a.dlse), dlogits(a.dlogits);
  for (int64_t t = 0; t < logits.size(0); ++t)
    for (int64_t v = 0; v < logits.size(1); ++v)
      dlogits(t, v) = terms.gradient(dlse(t), logits(t, v), lse(t), false);
}

template <class S>
void evaluate(const SelectiveLogSoftmaxForward& a) {
  const CrossEntropyTerms<S> terms = terms_of<S>(a, a.logits, a.labels, a.ignore_index);
  const View<S> logits(a.logits), logp(a.logp), entropy(a.entropy), lse_out(a.lse);
  const View<int64_t> invalid(a.invalid_labels);
  for (int64_t t = 0; t < logits.size(0); ++t) {
    const bool is_invalid = terms.state(t) == LabelState::invalid;
    const S skipped(is_invalid ? std::numeric_limits<double>::quiet_NaN() : 0.0);
    S lse(0.0);
    if (terms.is_skipped(t)) {
      logp(t) = skipped;
      if (entropy) entropy(t) = skipped;
    } else {
      const std::vector<S> z = chained_row(terms, logits, t);
      lse = log_sum_exp(z);
      logp(t) = z[static_cast<size_t>(terms.column(t))] - lse;
      if (entropy) entropy(t) = entropy_of(z);
    }
    if (lse_out) lse_out(t) = lse;
    if (!invalid || !is_invalid) continue;
    invalid(0) += 1;
    invalid(1) = std::min(invalid(1), t);
  }
}

template <class S>
void evaluate(const SelectiveLogSoftmaxBackward& a) {
  const CrossEntropyTerms<S> terms = terms_of<S>(a, a.logits, a.labels, a.ignore_index);
  const View<S> logits(a.logits), lse(a.lse), entropy(a.entropy), dlogp(a.dlogp), dentropy(a.dentropy),
      dlogits(a.dlogits);
  for (int64_t t = 0; t < logits.size(0); ++t) {
    for (int64_t v = 0; v < logits.size(1); ++v) {
      S gradient(0.0);
      if (!terms.is_skipped(t)) {
        gradient = terms.gradient(-dlogp(t), logits(t, v), lse(t), terms.is_label(t, v));
        if (dentropy) gradient = gradient + terms.entropy_gradient(dentropy(t), logits(t, v), lse(t), entropy(t));
      }
      dlogits(t, v) = gradient;
    }
  }
}

}  // namespace fla::reference
