// Losses between two distributions.
#pragma once

#include "fla/distribution_loss.h"
#include "reference/loss.h"

namespace fla::reference {

// A row of logits as base-2 logarithms of probabilities, formed as kernels form them: each term rounded in base 2.
template <class S>
std::vector<S> log2_probabilities(const View<S>& logits, int64_t t, const S& scale) {
  std::vector<S> z(static_cast<size_t>(logits.size(1)));
  for (size_t v = 0; v < z.size(); ++v) z[v] = logits(t, v) * scale;
  const S log2_e(std::numbers::log2e), lse = log_sum_exp(z) * log2_e;
  for (S& x : z) x = x * log2_e - lse;
  return z;
}

// The formulas of one column, from log2 q and log2 p.
template <class S>
class DivergenceTerms {
 public:
  explicit DivergenceTerms(const KlDivForwardBackward& a) : kind_(a.divergence), beta_(constant<S>(a.beta)) {}

  // What the column adds to the loss, in base 2. Probabilities of 0 add nothing.
  S loss(const S& log_q, const S& log_p) const {
    if (kind_ == Divergence::forward_kl) return weighted(log_p, log_p - log_q);
    if (kind_ == Divergence::reverse_kl) return weighted(log_q, log_q - log_p);
    return beta_ * weighted(log_p, share(log_p, log_q, beta_)) +
           (S(1.0) - beta_) * weighted(log_q, share(log_q, log_p, S(1.0) - beta_));
  }
  // log2(q / p), or log2(q / m).
  S q_share(const S& log_q, const S& log_p) const {
    return kind_ == Divergence::reverse_kl ? log_q - log_p : share(log_q, log_p, S(1.0) - beta_);
  }
  // What the mean of q_share is formed of.
  S centre(const S& log_q, const S& log_p) const {
    return kind_ == Divergence::forward_kl ? S(0.0) : weighted(log_q, q_share(log_q, log_p));
  }
  // d loss / d (logit / temperature).
  S gradient(const S& log_q, const S& log_p, const S& centre) const {
    if (kind_ == Divergence::forward_kl) return exp2_(log_q) - exp2_(log_p);
    const S inner = weighted(log_q, q_share(log_q, log_p) - centre) * S(std::numbers::ln2);
    return kind_ == Divergence::reverse_kl ? inner : (S(1.0) - beta_) * inner;
  }

 private:
  static S weighted(const S& log_x, const S& value_of_x) {
    return value(log_x) == -std::numeric_limits<double>::infinity() ? S(0.0) : exp2_(log_x) * value_of_x;
  }
  // log2(x / (w x + (1 - w) y)), whichever of x and y is larger.
  static S share(const S& log_x, const S& log_y, const S& w) {
    const S apart = log_x - log_y;
    if (value(apart) > 0) return -log2_(w + (S(1.0) - w) * exp2_(-apart));
    return apart - log2_((S(1.0) - w) + w * exp2_(apart));
  }

  Divergence kind_;
  S beta_;
};

template <class S>
void evaluate(const KlDivForwardBackward& a) {
  const View<S> logits(a.logits), target(a.target_logits), dloss(a.dloss), dlogits(a.dlogits), loss(a.loss);
  const View<int64_t> labels(a.labels);
  const int64_t rows = logits.size(0), columns = logits.size(1);
  const auto ignored = [&](int64_t t) { return labels && labels(t) == a.ignore_index; };
  int64_t kept = 0;
  for (int64_t t = 0; t < rows; ++t) kept += !ignored(t);
  const bool mean = a.reduction == Reduction::mean;
  const S divisor = !mean ? S(1.0) : a.normalizer ? View<S>(a.normalizer)(0) : constant<S>(kept);
  const S scale = S(1.0) / constant<S>(a.temperature);
  const DivergenceTerms<S> terms(a);
  std::vector<S> row_loss(static_cast<size_t>(rows), S(0.0));
  for (int64_t t = 0; t < rows; ++t) {
    if (ignored(t)) {
      for (int64_t v = 0; v < columns; ++v) dlogits(t, v) = S(0.0);
      continue;
    }
    const std::vector<S> q = log2_probabilities(logits, t, scale), p = log2_probabilities(target, t, scale);
    const auto total = [&](auto&& of) {
      return sum<S>(
          columns, [&](int64_t v) { return of(q[static_cast<size_t>(v)], p[static_cast<size_t>(v)]); },
          kVocabularyLanes);
    };
    row_loss[static_cast<size_t>(t)] =
        total([&](const S& x, const S& y) { return terms.loss(x, y); }) * S(std::numbers::ln2);
    const S centre = total([&](const S& x, const S& y) { return terms.centre(x, y); });
    S g = dloss ? dloss(a.reduction == Reduction::none ? t : 0) : S(1.0);
    if (mean) g = g / divisor;
    for (int64_t v = 0; v < columns; ++v) {
      const auto at = static_cast<size_t>(v);
      dlogits(t, v) = g * scale * terms.gradient(q[at], p[at], centre);
    }
  }
  if (a.reduction == Reduction::none) {
    for (int64_t t = 0; t < rows; ++t) loss(t) = row_loss[static_cast<size_t>(t)];
  } else if (mean && !a.normalizer && kept == 0) {
    loss(0) = S(a.empty_mean == EmptyMean::zero ? 0.0 : std::numeric_limits<double>::quiet_NaN());
  } else {
    const S total = sum<S>(
        rows, [&](int64_t t) { return row_loss[static_cast<size_t>(t)]; }, kVocabularyLanes);
    loss(0) = mean ? total / divisor : total;
  }
}

}  // namespace fla::reference
